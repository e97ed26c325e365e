"""How a container begins and ends: its hooks, and its stop within a grace period.

    start ─▶ postStart ─▶ it counts as running         postStart fails ─▶ stop, restart
    preStop ─▶ sidecars wait for the containers ─▶ stop signal ─▶ what is left of the grace ─▶ SIGKILL

Each hook is run at least once: an agent that comes back while one is at work runs it again, except that a `sleep` goes
on from where it was.
Source: Kubernetes documentation, "Container Lifecycle Hooks", "Termination of Pods"; kubelet's killContainer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from testbed.agent.actions import act
from testbed.agent.health import Probing
from testbed.agent.podrun import Ground
from testbed.agent.sandbox import ContainerState
from testbed.api.objects import Object, is_deleting, metadata, parse_time, spec

LEAST_AFTER_HOOK_S = 2.0
"""What a program has between its stop signal and SIGKILL, however long the hook took."""
ROUNDING_S = 1.0
"""The API tells times in whole seconds."""
HOOK_LIMIT_S = 3600.0
"""How long a postStart hook may take: Kubernetes does not say, and somebody must let go."""

Stop = Callable[[str, float], Awaitable[None]]
"""See Sandboxes.stop; awaited."""


@dataclass(frozen=True)
class Hooks:
    """Runs the hooks of one host's containers. `failed` is told, with the pod, why one did not succeed."""

    probing: Probing
    stop: Stop
    failed: Callable[[Object, str, str], None]
    """With the reason of an Event, and its message."""

    async def after_start(
        self, pod: Object, container: Mapping[str, Any], state: ContainerState, ground: Ground
    ) -> bool:
        """Run postStart; whether the container may live."""
        why = await self._run("postStart", container, state, ground, HOOK_LIMIT_S, slept_s=0)
        if why:
            self.failed(pod, "FailedPostStartHook", f"PostStartHook of container {container['name']} failed: {why}")
        return not why

    async def end(
        self,
        pod: Object,
        container: Mapping[str, Any],
        state: ContainerState,
        ground: Ground,
        grace_s: float,
        after: Collection[asyncio.Task[None]] = (),
    ) -> None:
        """preStop, then wait for the containers that end before this one, then stop, all within `grace_s`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_s
        if grace_s > 0 and "preStop" in (container.get("lifecycle") or {}):
            why = await self._run("preStop", container, state, ground, grace_s, slept_s=ending_for_s(pod))
            if why:
                self.failed(pod, "FailedPreStopHook", f"PreStopHook of container {container['name']} failed: {why}")
            until = max(until, loop.time() + LEAST_AFTER_HOOK_S)
        if after and grace_s > 0:
            await asyncio.wait(after, timeout=max(0.0, until - loop.time()))
            until = max(until, loop.time() + LEAST_AFTER_HOOK_S)
        await self.stop(state.id, max(0.0, until - loop.time()))

    async def _run(
        self,
        which: str,
        container: Mapping[str, Any],
        state: ContainerState,
        ground: Ground,
        timeout_s: float,
        *,
        slept_s: float,
    ) -> str:
        handler = container["lifecycle"][which]
        if (sleep := handler.get("sleep")) is not None:
            handler = {"sleep": {"seconds": max(0.0, sleep["seconds"] - slept_s)}}
        return await act(self.probing.action(handler, container, state, ground), timeout_s)


def grace_left_s(pod: Object) -> float:
    """How long the pod may still take to end: its grace, or what is left of it where an agent before this one began."""
    grace_s = float(metadata(pod).get("deletionGracePeriodSeconds") or 0)
    until = parse_time(metadata(pod)["deletionTimestamp"]) + timedelta(seconds=ROUNDING_S)
    return max(0.0, min(grace_s, (until - datetime.now(UTC)).total_seconds()))


def ending_for_s(pod: Object) -> float:
    """How long ago the pod's deletion was asked for, in whole seconds; 0 where it has not been."""
    if not is_deleting(pod):
        return 0.0
    grace = timedelta(seconds=metadata(pod).get("deletionGracePeriodSeconds") or 0)
    since = parse_time(metadata(pod)["deletionTimestamp"]) - grace
    return max(0.0, (datetime.now(UTC) - since).total_seconds() - ROUNDING_S)


def grace_of(pod: Object, probe: Mapping[str, Any]) -> float:
    """What a container has that is stopped while its pod lives on: the probe's own grace, or the pod's."""
    own = probe.get("terminationGracePeriodSeconds")
    return float(spec(pod).get("terminationGracePeriodSeconds", 30) if own is None else own)
