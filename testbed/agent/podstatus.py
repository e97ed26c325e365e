"""What a pod's status says, from what runs. Pure.

Source: Kubernetes documentation, "Pod Lifecycle"; API reference, core/v1 PodStatus.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from testbed.agent.sandbox import ContainerState
from testbed.api.objects import Object, condition, now, spec, status

KILLED = 128 + 9


@dataclass(frozen=True)
class ContainerView:
    """One container of a pod, as far as its agent knows."""

    name: str
    image: str
    attempts: Sequence[ContainerState] = ()
    """Oldest first; the last one is the container's state, the one before it its last state."""
    is_ready: bool = False
    """It runs, and its readiness probe, if it has one, has succeeded."""
    waits_for: str = ""
    """Why it is not being started: a reason such as ErrImagePull."""
    message: str = ""

    @property
    def current(self) -> ContainerState | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def is_running(self) -> bool:
        """Whether the newest attempt runs."""
        return self.current is not None and self.current.is_running


@dataclass(frozen=True)
class PodView:
    """A pod, as far as its agent knows."""

    runtime: str
    host_ip: str
    pod_ip: str = ""
    """Empty until the pod is wired."""
    started_at: str = ""
    containers: Sequence[ContainerView] = field(default_factory=tuple)


def pod_status(pod: Object, view: PodView) -> dict[str, Any]:
    """The fields of the status that the agent owns; what has not changed keeps its times."""
    current = phase(pod, view.containers)
    has_ended = current in ("Succeeded", "Failed")
    is_ready = not has_ended and all(container.is_ready for container in view.containers)
    why = _unready(view.containers, has_ended=has_ended, was_successful=current == "Succeeded")
    wanted: dict[str, Any] = {
        "phase": current,
        "conditions": [
            _condition(pod, "PodScheduled", is_true=True),
            _condition(pod, "Initialized", is_true=True),
            _condition(pod, "ContainersReady", is_true=is_ready, why=why),
            _condition(pod, "Ready", is_true=is_ready, why=why),
        ],
        "hostIP": view.host_ip,
        "hostIPs": [{"ip": view.host_ip}],
        "startTime": status(pod).get("startTime") or view.started_at or now(),
        "containerStatuses": [_container_status(container, view.runtime) for container in view.containers],
    }
    if view.pod_ip:
        wanted |= {"podIP": view.pod_ip, "podIPs": [{"ip": view.pod_ip}]}
    return wanted


def phase(pod: Object, containers: Sequence[ContainerView]) -> str:
    """Pending until every container has been started once, Succeeded or Failed when none will be started again."""
    known = [container.current for container in containers]
    if not all(known) or not known:
        return "Pending"
    if any(will_run_again(pod, state) for state in known if state):
        return "Running"
    return "Succeeded" if all(state.exit_code == 0 for state in known if state) else "Failed"


def will_run_again(pod: Object, state: ContainerState) -> bool:
    """Whether it runs, or will be restarted by the pod's restartPolicy."""
    policy = spec(pod).get("restartPolicy") or "Always"
    return state.is_running or policy == "Always" or (policy == "OnFailure" and state.exit_code != 0)


def differs(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a held status must be patched to say what is wanted."""
    return any(held.get(field) != value for field, value in wanted.items())


def _unready(containers: Sequence[ContainerView], *, has_ended: bool, was_successful: bool) -> tuple[str, str]:
    if has_ended:
        return ("PodCompleted" if was_successful else "PodFailed"), ""
    unready = [container.name for container in containers if not container.is_ready]
    return ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]") if unready else ("", "")


def _condition(pod: Object, kind: str, *, is_true: bool, why: tuple[str, str] = ("", "")) -> dict[str, Any]:
    before = condition(pod, kind)
    value = "True" if is_true else "False"
    since = before.get("lastTransitionTime") if before.get("status") == value else None
    wanted: dict[str, Any] = {"type": kind, "status": value, "lastTransitionTime": since or now()}
    if not is_true:
        wanted |= {name: text for name, text in zip(("reason", "message"), why, strict=True) if text}
    return wanted


def _container_status(container: ContainerView, runtime: str) -> dict[str, Any]:
    current = container.current
    previous = container.attempts[-2] if len(container.attempts) > 1 else None
    told = {
        "name": container.name,
        "image": container.image,
        "imageID": current.image if current else "",
        "ready": container.is_ready,
        "started": container.is_running,
        "restartCount": current.attempt if current else 0,
        "state": _state(container, runtime),
        "lastState": {},
    }
    if current:
        told["containerID"] = f"{runtime}://{current.id}"
    if current and container.waits_for:
        told["lastState"] = {"terminated": _terminated(current, runtime)}
    elif previous:
        told["lastState"] = {"terminated": _terminated(previous, runtime)}
    return told


def _state(container: ContainerView, runtime: str) -> dict[str, Any]:
    current = container.current
    if container.waits_for or current is None:
        waiting = {"reason": container.waits_for or "ContainerCreating"}
        return {"waiting": waiting | ({"message": container.message} if container.message else {})}
    if current.is_running:
        return {"running": {"startedAt": current.started_at}}
    return {"terminated": _terminated(current, runtime)}


def _terminated(state: ContainerState, runtime: str) -> dict[str, Any]:
    code = KILLED if state.exit_code is None else state.exit_code
    told = {
        "exitCode": code,
        "reason": "StartError" if state.reason else "Completed" if code == 0 else "Error",
        "startedAt": state.started_at,
        "finishedAt": state.finished_at,
        "containerID": f"{runtime}://{state.id}",
    }
    return told | ({"message": state.reason} if state.reason else {})
