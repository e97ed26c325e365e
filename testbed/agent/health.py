"""How the containers of a pod do: each running one is asked by its probes, in tasks of their own.

    startupProbe ─ succeeds ─▶ started ─▶ readinessProbe: ready or not; livenessProbe: to be restarted
                 └ fails ────▶ to be restarted

Readiness is asked for as long as a container runs, also while its pod ends: what still serves may keep its flows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from testbed.agent.actions import Action, Execute, Sockets, Target, action_of
from testbed.agent.podplan import all_containers
from testbed.agent.podrun import Ground
from testbed.agent.probes import Timing, keep_asking
from testbed.agent.sandbox import ContainerState
from testbed.api.objects import Object, parse_time, status

STARTUP, READINESS, LIVENESS = "startupProbe", "readinessProbe", "livenessProbe"
WORDS = {STARTUP: "Startup", READINESS: "Readiness", LIVENESS: "Liveness"}


@dataclass(frozen=True)
class Probing:
    """How probes and hooks reach a pod."""

    sockets: Callable[[str], Sockets]
    """By node. NotFound."""
    execute: Execute
    unhealthy: Callable[[Object, str], None]
    """Told, with the pod, why a probe failed."""

    def action(
        self, handler: Mapping[str, Any], container: Mapping[str, Any], state: ContainerState, ground: Ground
    ) -> Action:
        """What a probe or a hook of the container does. By which sockets is seen each time: a probe outlives them."""
        target = Target(state.id, container, ground.address)

        async def ask() -> str:
            return await action_of(handler, target, self.sockets(ground.node.name), self.execute)()

        return ask


@dataclass
class _Patient:
    started: bool
    ready: bool
    failed: str = ""
    """The probe that has given the container up."""
    told: str = ""
    asking: dict[str, asyncio.Task[None]] = field(default_factory=dict)


class Health:
    """The health of one pod's containers. `changed` is called when what is believed of one turns."""

    def __init__(self, changed: Callable[[], None], probing: Probing) -> None:
        self._changed = changed
        self._probing = probing
        self._patients: dict[str, _Patient] = {}

    def is_started(self, state: ContainerState) -> bool:
        """Whether a running container's startup probe, if it has one, has succeeded."""
        patient = self._patients.get(state.id)
        return patient is not None and patient.started

    def is_ready(self, state: ContainerState) -> bool:
        """Whether it has started and its readiness probe, if it has one, succeeds."""
        patient = self._patients.get(state.id)
        return patient is not None and patient.started and patient.ready

    def failed_probe(self, state: ContainerState) -> str:
        """livenessProbe or startupProbe, where that has given the container up; else empty."""
        patient = self._patients.get(state.id)
        return patient.failed if patient else ""

    def follow(self, pod: Object, ground: Ground, running: Mapping[str, ContainerState], *, is_ending: bool) -> None:
        """Ask these containers, by name, and no others; in a pod that ends only whether they are ready."""
        for gone in self._patients.keys() - {state.id for state in running.values()}:
            self._discharge(self._patients.pop(gone))
        for container in all_containers(pod):
            if state := running.get(container["name"]):
                self._follow_one(pod, container, state, ground, is_ending=is_ending)

    def stop(self) -> None:
        """Ask nobody."""
        for patient in self._patients.values():
            self._discharge(patient)
        self._patients.clear()

    def _follow_one(
        self, pod: Object, container: Mapping[str, Any], state: ContainerState, ground: Ground, *, is_ending: bool
    ) -> None:
        patient = self._patients.get(state.id)
        if patient is None:
            told = told_of(pod, state)
            patient = self._patients[state.id] = _Patient(
                STARTUP not in container or bool(told.get("started")),
                READINESS not in container or bool(told.get("ready")),
            )
        wanted: tuple[str, ...] = (READINESS, LIVENESS) if patient.started else (STARTUP,)
        if is_ending:
            wanted = (READINESS,) if patient.started else ()
        for kind in patient.asking.keys() - wanted:
            patient.asking.pop(kind).cancel()
        for kind in wanted:
            if kind in container and kind not in patient.asking:
                patient.asking[kind] = self._ask(pod, container, state, ground, kind)

    def _ask(
        self, pod: Object, container: Mapping[str, Any], state: ContainerState, ground: Ground, kind: str
    ) -> asyncio.Task[None]:
        probe, patient = container[kind], self._patients[state.id]
        action = self._probing.action(probe, container, state, ground)
        held = patient.ready if kind == READINESS else None
        tell = partial(self._tell, pod, patient, kind)
        return asyncio.create_task(keep_asking(action, timing_of(probe, state), tell, held=held))

    def _tell(self, pod: Object, patient: _Patient, kind: str, held: bool | None, reason: str) -> None:
        if reason and reason != patient.told:
            self._probing.unhealthy(pod, f"{WORDS[kind]} probe failed: {reason}")
        patient.told = reason
        before = (patient.started, patient.ready, patient.failed)
        if kind == READINESS:
            patient.ready = bool(held)
        elif held is False:
            patient.failed = kind
        elif kind == STARTUP and held:
            patient.started = True
        if before != (patient.started, patient.ready, patient.failed):
            self._changed()

    @staticmethod
    def _discharge(patient: _Patient) -> None:
        for task in patient.asking.values():
            task.cancel()


def timing_of(probe: Mapping[str, Any], state: ContainerState) -> Timing:
    """The probe's timing, with what is left of its first delay for a container that has been running for a while."""
    age_s = (datetime.now(UTC) - parse_time(state.started_at)).total_seconds()
    delay_s = max(0.0, (probe.get("initialDelaySeconds") or 0) - max(0.0, age_s))
    return Timing.of({**probe, "initialDelaySeconds": delay_s})


def told_of(pod: Object, state: ContainerState) -> Mapping[str, Any]:
    """What the API says of this very container: an agent that starts anew must not take traffic away from it."""
    statuses = [*(status(pod).get("initContainerStatuses") or []), *(status(pod).get("containerStatuses") or [])]
    return next((told for told in statuses if str(told.get("containerID", "")).endswith(f"//{state.id}")), {})
