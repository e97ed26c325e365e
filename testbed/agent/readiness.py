"""Which containers of a pod are ready: each running one with a readiness probe is asked by a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.agent.podrun import Ground
from testbed.agent.probes import NodeSockets, Probe, Timing, http_probe, keep_asking, port_number, tcp_probe
from testbed.agent.sandbox import ContainerState
from testbed.api.objects import Object, spec, status


@dataclass(frozen=True)
class Probing:
    """How probes reach a pod."""

    sockets: Callable[[str], NodeSockets]
    """By node."""
    execute: Callable[[str, Sequence[str]], Awaitable[int]]
    """Run a program in a container, by its id: the exit code."""
    unhealthy: Callable[[Object, str], None]
    """Told, with the pod, why a probe failed."""


class Readiness:
    """The readiness of one pod's containers. `changed` is called when one's answer turns."""

    def __init__(self, changed: Callable[[], None], probing: Probing) -> None:
        self._changed = changed
        self._probing = probing
        self._ready: dict[str, bool] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def is_ready(self, state: ContainerState) -> bool:
        """Whether a running container is ready; one without a probe is."""
        return self._ready.get(state.id, state.id not in self._asking)

    def follow(self, pod: Object, ground: Ground, running: Mapping[str, ContainerState]) -> None:
        """Ask these containers, by name, and no others."""
        ids = {state.id for state in running.values()}
        for gone in self._asking.keys() - ids:
            self._asking.pop(gone).cancel()
            self._ready.pop(gone, None)
        for container in spec(pod)["containers"]:
            state, wanted = running.get(container["name"]), container.get("readinessProbe")
            if state and wanted and state.id not in self._asking:
                self._ready[state.id] = was_ready(pod, state)
                probe = self._probe(wanted, container, ground, state.id)
                self._asking[state.id] = asyncio.create_task(self._ask(pod, state.id, probe, Timing.of(wanted)))

    def stop(self) -> None:
        """Ask nobody."""
        for task in self._asking.values():
            task.cancel()
        self._asking.clear()

    async def _ask(self, pod: Object, container_id: str, probe: Probe, timing: Timing) -> None:
        told = ""

        def tell(is_ready: bool, reason: str) -> None:
            nonlocal told
            if reason and reason != told:
                self._probing.unhealthy(pod, f"Readiness probe failed: {reason}")
            told = reason
            if self._ready.get(container_id) is not is_ready:
                self._ready[container_id] = is_ready
                self._changed()

        await keep_asking(probe, timing, tell, is_ready=self._ready[container_id])

    def _probe(
        self, wanted: Mapping[str, Any], container: Mapping[str, Any], ground: Ground, container_id: str
    ) -> Probe:
        if action := wanted.get("exec"):
            return self._exec_probe(container_id, action["command"])
        sockets = self._probing.sockets(ground.node.name)
        action = wanted.get("httpGet") or wanted["tcpSocket"]
        address, port = action.get("host") or str(ground.address), port_number(container, action["port"])
        return http_probe(sockets, address, port, action) if "httpGet" in wanted else tcp_probe(sockets, address, port)

    def _exec_probe(self, container_id: str, command: list[str]) -> Probe:
        async def ask() -> str:
            code = await self._probing.execute(container_id, command)
            return f"{' '.join(command)} exited with {code}" if code else ""

        return ask


def was_ready(pod: Object, state: ContainerState) -> bool:
    """What the API says of this very container: an agent that starts anew must not take traffic away from it."""
    told: Mapping[str, Any] = next(
        (c for c in status(pod).get("containerStatuses") or [] if c["name"] == state.name), {}
    )
    return bool(told.get("ready")) and str(told.get("containerID", "")).endswith(f"//{state.id}")
