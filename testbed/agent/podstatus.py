"""What a pod's status says, from what runs. Pure.

Source: Kubernetes documentation, "Pod Lifecycle"; API reference, core/v1 PodStatus.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from testbed.agent.podplan import containers, init_containers, is_sidecar, will_run_again
from testbed.agent.sandbox import ContainerState
from testbed.api.objects import Object, condition, now, spec, status

KILLED = 128 + 9
OUT_OF_MEMORY = "OOMKilled"
OWN_CONDITIONS = ("PodScheduled", "Initialized", "ContainersReady", "Ready")


@dataclass(frozen=True)
class ContainerView:
    """One container of a pod, as far as its agent knows."""

    container: Mapping[str, Any]
    """As the pod's manifest has it."""
    attempts: Sequence[ContainerState] = ()
    """Oldest first; the last one is the container's state, the one before it its last state."""
    has_begun: bool = False
    """It runs, and its postStart hook, if it has one, is over."""
    is_started: bool = False
    """And its startup probe has succeeded."""
    is_ready: bool = False
    """And its readiness probe does."""
    waits_for: str = ""
    """Why it is not being started: a reason such as ErrImagePull."""
    message: str = ""

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.container["name"])

    @property
    def current(self) -> ContainerState | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def is_beginning(self) -> bool:
        """Whether its program runs, but not yet the container: its postStart hook is at work."""
        return self.current is not None and self.current.is_running and not self.has_begun


@dataclass(frozen=True)
class PodView:
    """A pod, as far as its agent knows."""

    runtime: str
    host_ip: str
    pod_ip: str = ""
    """Empty until the pod is wired."""
    started_at: str = ""
    containers: Sequence[ContainerView] = field(default_factory=tuple)
    """All of them, init containers too."""
    is_initialized: bool = True
    """Whether the init containers let the others run."""

    def of(self, among: Sequence[Mapping[str, Any]]) -> list[ContainerView]:
        """The views of these containers."""
        names = {container["name"] for container in among}
        return [view for view in self.containers if view.name in names]


def pod_status(pod: Object, view: PodView) -> dict[str, Any]:
    """The fields of the status that the agent owns; what has not changed keeps its times."""
    current = phase(pod, view)
    init = view.of(init_containers(pod))
    wanted: dict[str, Any] = {
        "phase": current,
        "conditions": _conditions(pod, view, current),
        "hostIP": view.host_ip,
        "hostIPs": [{"ip": view.host_ip}],
        "startTime": status(pod).get("startTime") or view.started_at or now(),
        "containerStatuses": [_container_status(pod, one, view.runtime) for one in view.of(containers(pod))],
    }
    if init:
        wanted["initContainerStatuses"] = [_container_status(pod, container, view.runtime) for container in init]
    if view.pod_ip:
        wanted |= {"podIP": view.pod_ip, "podIPs": [{"ip": view.pod_ip}]}
    return wanted


def phase(pod: Object, view: PodView) -> str:
    """Pending until every container has been started once, Succeeded or Failed when none will be started again."""
    init, apps = view.of(init_containers(pod)), view.of(containers(pod))
    if any(_has_failed(pod, container) for container in init):
        return "Failed"
    if not view.is_initialized or not apps or any(_is_pending(container) for container in apps):
        return "Pending"
    states = [(one.container, one.current) for one in apps]
    if any(will_run_again(pod, container, state) for container, state in states if state):
        return "Running"
    if any(one.current and one.current.is_running for one in init):
        return "Running"  # sidecars that are about to end
    return "Succeeded" if all(state.exit_code == 0 for _, state in states if state) else "Failed"


def _is_pending(view: ContainerView) -> bool:
    return view.current is None or (view.is_beginning and view.current.attempt == 0)


def _has_failed(pod: Object, view: ContainerView) -> bool:
    """An init container that is not tried again ends its pod."""
    state = view.current
    return state is not None and state.exit_code not in (None, 0) and not will_run_again(pod, view.container, state)


def differs(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a held status must be patched to say what is wanted."""
    return any(held.get(field) != value for field, value in wanted.items())


def _conditions(pod: Object, view: PodView, phase: str) -> list[dict[str, Any]]:
    """The agent's own, and those that others have written."""
    has_ended = phase in ("Succeeded", "Failed")
    why = _unready(pod, view, has_ended=has_ended, was_successful=phase == "Succeeded")
    gate = "" if why[0] else _closed_gate(pod)
    foreign = [held for held in status(pod).get("conditions") or [] if held.get("type") not in OWN_CONDITIONS]
    return [
        _condition(pod, "PodScheduled"),
        _condition(pod, "Initialized", why=_uninitialized(pod, view)),
        _condition(pod, "ContainersReady", why=why),
        _condition(pod, "Ready", why=("ReadinessGatesNotReady", gate) if gate else why),
        *foreign,
    ]


def _uninitialized(pod: Object, view: PodView) -> tuple[str, str]:
    if view.is_initialized:
        return "", ""
    left = [one.name for one in view.of(init_containers(pod)) if not _is_complete(one)]
    return "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(left)}]"


def _is_complete(view: ContainerView) -> bool:
    if is_sidecar(view.container):
        return view.is_started
    return view.current is not None and view.current.exit_code == 0


def _unready(pod: Object, view: PodView, *, has_ended: bool, was_successful: bool) -> tuple[str, str]:
    if has_ended:
        return ("PodCompleted" if was_successful else "PodFailed"), ""
    counted = [one for one in view.containers if is_sidecar(one.container)] + view.of(containers(pod))
    unready = [one.name for one in counted if not one.is_ready]
    return ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]") if unready else ("", "")


def _closed_gate(pod: Object) -> str:
    """Which condition, written by somebody else, keeps the pod from being Ready."""
    gates = [gate["conditionType"] for gate in spec(pod).get("readinessGates") or []]
    held = {gate: condition(pod, gate).get("status") for gate in gates}
    said = (
        f'the status of pod readiness gate "{gate}" is not "True", but {value}'
        if value
        else f'corresponding condition of pod readiness gate "{gate}" does not exist.'
        for gate, value in held.items()
        if value != "True"
    )
    return ", ".join(said)


def _condition(pod: Object, kind: str, *, why: tuple[str, str] = ("", "")) -> dict[str, Any]:
    """A condition that is true unless there is a reason, and a message, why not."""
    before = condition(pod, kind)
    value = "False" if why[0] else "True"
    since = before.get("lastTransitionTime") if before.get("status") == value else None
    wanted: dict[str, Any] = {"type": kind, "status": value, "lastTransitionTime": since or now()}
    return wanted | {name: text for name, text in zip(("reason", "message"), why, strict=True) if text}


def _container_status(pod: Object, view: ContainerView, runtime: str) -> dict[str, Any]:
    current = view.current
    is_init = not is_sidecar(view.container) and view.container in init_containers(pod)
    told = {
        "name": view.name,
        "image": view.container["image"],
        "imageID": current.image if current else "",
        "ready": _is_complete(view) if is_init else view.is_ready,
        "started": view.is_started,
        "restartCount": current.attempt if current else 0,
        "state": _state(pod, view, runtime),
        "lastState": {},
    }
    if current:
        told["containerID"] = f"{runtime}://{current.id}"
    if current and view.waits_for:
        told["lastState"] = {"terminated": _terminated(current, runtime)}
    elif len(view.attempts) > 1:
        told["lastState"] = {"terminated": _terminated(view.attempts[-2], runtime)}
    return told


def _state(pod: Object, view: ContainerView, runtime: str) -> dict[str, Any]:
    current = view.current
    if view.waits_for or current is None or view.is_beginning:
        waiting = {"reason": view.waits_for or ("PodInitializing" if init_containers(pod) else "ContainerCreating")}
        return {"waiting": waiting | ({"message": view.message} if view.message else {})}
    if current.is_running:
        return {"running": {"startedAt": current.started_at}}
    return {"terminated": _terminated(current, runtime)}


def _terminated(state: ContainerState, runtime: str) -> dict[str, Any]:
    code = KILLED if state.exit_code is None else state.exit_code
    told = {
        "exitCode": code,
        "reason": _reason(state, code),
        "startedAt": state.started_at,
        "finishedAt": state.finished_at,
        "containerID": f"{runtime}://{state.id}",
    }
    return told | ({"message": state.reason} if told["reason"] == "StartError" else {})


def _reason(state: ContainerState, code: int) -> str:
    """Kubernetes' word for how it ended; any other reason that a runtime gives is why it never ran."""
    if state.reason:
        return OUT_OF_MEMORY if state.reason == OUT_OF_MEMORY else "StartError"
    return "Error" if code else "Completed"
