"""Which containers of a pod are to run now, and when one that has ended may run again. Pure.

    init containers, one after the other, each to its end ─▶ containers, all at once
    a sidecar (an init container with restartPolicy Always) only has to have started, and runs on beside the containers

Source: Kubernetes documentation, "Init Containers", "Sidecar Containers", "Pod Lifecycle" (container restarts);
kubelet's computePodActions and client-go's flowcontrol.Backoff.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from testbed.agent.sandbox import ContainerState
from testbed.api.objects import Object, parse_time, spec

Container = Mapping[str, Any]
Newest = Mapping[str, ContainerState]
"""The newest attempt at each container, by its name."""
HasStarted = Callable[[ContainerState], bool]
"""Whether a running container's postStart hook and startup probe are behind it."""

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 10.0, 300.0
FORGIVEN = timedelta(minutes=10)
"""A container that lived this long is restarted at once, as if it had never died before."""
ROUNDING_S = 1.0
"""Runtimes tell times in whole seconds."""


def init_containers(pod: Object) -> list[dict[str, Any]]:
    """In the order in which they are started."""
    return spec(pod).get("initContainers") or []


def containers(pod: Object) -> list[dict[str, Any]]:
    """The containers that the pod is there for."""
    return spec(pod).get("containers") or []


def all_containers(pod: Object) -> list[dict[str, Any]]:
    """In the order in which they are started."""
    return [*init_containers(pod), *containers(pod)]


def sidecars(pod: Object) -> list[dict[str, Any]]:
    """In the order in which they are started; they end in the opposite one, after the containers."""
    return [container for container in init_containers(pod) if is_sidecar(container)]


def is_sidecar(container: Container) -> bool:
    """Only an init container may have a restartPolicy of its own."""
    return container.get("restartPolicy") == "Always"


def is_initialized(pod: Object, newest: Newest, has_started: HasStarted) -> bool:
    """Whether the containers may start; once they have been, a sidecar that has died does not hold them up again."""
    begun = any(container["name"] in newest for container in containers(pod))
    return all(_is_passed(container, newest, has_started, begun=begun) for container in init_containers(pod))


def due(pod: Object, newest: Newest, has_started: HasStarted) -> list[dict[str, Any]]:
    """The containers that should be running and are not, first the one that others may wait for."""
    if is_initialized(pod, newest, has_started):
        wanted = [*sidecars(pod), *containers(pod)] if not is_done(pod, newest) else []
        return [container for container in wanted if _is_due(pod, container, newest)]
    for number, container in enumerate(init_containers(pod)):
        if not _is_passed(container, newest, has_started, begun=False):
            before = [sidecar for sidecar in init_containers(pod)[:number] if is_sidecar(sidecar)]
            return [one for one in (*before, container) if _is_due(pod, one, newest)]
    return []


def is_done(pod: Object, newest: Newest) -> bool:
    """Whether none of the containers will run again: sidecars have nothing left to stand by."""
    states = [(container, newest.get(container["name"])) for container in containers(pod)]
    return all(state and not will_run_again(pod, container, state) for container, state in states)


def will_run_again(pod: Object, container: Container, state: ContainerState) -> bool:
    """Whether it runs, or will be restarted by its own restartPolicy or the pod's."""
    if state.is_running or is_sidecar(container):
        return True
    policy = spec(pod).get("restartPolicy") or "Always"
    is_init = any(one["name"] == container["name"] for one in init_containers(pod))
    if policy == "Always" and not is_init:
        return True
    return policy != "Never" and state.exit_code != 0


def restart_pause_s(ended: ContainerState, before: ContainerState | None, first_s: float = FIRST_BACKOFF_S) -> float:
    """How long a container rests after its end: 0 s, 10 s, 20 s, 40 s and so on up to 300 s, as with a kubelet.

    How long it rested the last time is seen in its own times, so that an agent that starts anew goes on in the row.
    """
    lived = parse_time(ended.finished_at) - parse_time(ended.started_at)
    if ended.attempt == 0 or lived > FORGIVEN:
        return 0.0
    rested_s = (parse_time(ended.started_at) - parse_time(before.finished_at)).total_seconds() if before else 0.0
    pause_s, most_s = first_s, min(first_s * 2.0 ** min(ended.attempt - 1, 30), LONGEST_BACKOFF_S)
    while pause_s <= rested_s + ROUNDING_S and pause_s < most_s:
        pause_s *= 2
    return min(pause_s, most_s)


def _is_passed(container: Container, newest: Newest, has_started: HasStarted, *, begun: bool) -> bool:
    """Whether an init container lets those after it start."""
    state = newest.get(container["name"])
    if is_sidecar(container):
        return begun or (state is not None and state.is_running and has_started(state))
    return state is not None and state.exit_code == 0


def _is_due(pod: Object, container: Container, newest: Newest) -> bool:
    state = newest.get(container["name"])
    return state is None or (not state.is_running and will_run_again(pod, container, state))
