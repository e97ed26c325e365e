"""The containers of one pod: started when they are due, kept healthy, ended in order.

What is held here is what an agent that starts anew finds again: containers at the runtime, what was told of them in the
pod's status, and tasks (hooks, probes, ends) that it begins anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from testbed.agent.health import WORDS, Health, told_of
from testbed.agent.hooks import Hooks, grace_of
from testbed.agent.podhost import PodHost
from testbed.agent.podplan import (
    Container,
    all_containers,
    due,
    init_containers,
    is_done,
    is_initialized,
    is_sidecar,
    restart_pause_s,
    sidecars,
)
from testbed.agent.podrun import CannotStart, Ground
from testbed.agent.podstatus import ContainerView
from testbed.agent.sandbox import ContainerState, PodSandbox
from testbed.api.objects import Object, name, namespace, parse_time, uid

log = logging.getLogger(__name__)

EVENT_OF = {"CrashLoopBackOff": "BackOff", "FailedMount": "FailedMount"}
"""The Event's reason where it is not Failed."""
RETRY_S = 5.0
"""How soon something that could not be had is asked for again, when nothing tells that it is there."""


class PodContainers:
    """One pod's containers. `changed` is called when something about one of them has."""

    def __init__(self, host: PodHost, changed: Callable[[], None]) -> None:
        self.states: Sequence[ContainerState] = ()
        """As the runtime last showed them."""
        self.learned_at = 0.0
        """When a container was last started here (loop time): an older look at the runtime knows less."""
        self._host = host
        self._changed = changed
        self._health = Health(changed, host.probing)
        self._hooks = Hooks(host.probing, host.stop, host.events.warning)
        self._beginning: dict[str, asyncio.Task[None]] = {}
        self._begun: set[str] = set()
        self._rejected: set[str] = set()
        """Those whose postStart hook has failed."""
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._waits: dict[str, CannotStart] = {}
        self._retries: dict[str, asyncio.TimerHandle] = {}
        """One for each container, or every wake would leave another that goes on for ever."""

    async def ensure(self, pod: Object, ground: Ground, sandbox: PodSandbox | None) -> None:
        """Start what is due, stop what is sick or no longer needed."""
        self.attend(pod, ground)
        tried: set[str] = set()
        while waiting := [one for one in due(pod, self.newest(), self._has_started) if one["name"] not in tried]:
            tried.add(waiting[0]["name"])
            await self._ensure_one(pod, waiting[0], ground, sandbox)
            self.attend(pod, ground)
        self._waits = {which: why for which, why in self._waits.items() if which in tried}
        self._judge(pod, ground)

    def attend(self, pod: Object, ground: Ground, *, is_ending: bool = False) -> None:
        """Have probes and hooks follow the containers that run."""
        running = {state.name: state for state in self.newest().values() if state.is_running}
        alive = {state.id for state in running.values()}
        self._begun &= alive
        self._rejected &= alive
        for container in all_containers(pod):
            state = running.get(container["name"])
            if state and not is_ending and not self._has_begun(pod, container, state):
                del running[container["name"]]
                if state.id not in self._beginning:
                    self._beginning[state.id] = asyncio.create_task(self._begin(pod, container, state, ground))
        self._health.follow(pod, ground, running, is_ending=is_ending)

    def end(self, pod: Object, ground: Ground, grace_s: float) -> asyncio.Task[None]:
        """End them all: the containers at once, then the sidecars, the last one first. Again, with less grace, is fine.

        Cancelled, it leaves them as they are.
        """
        for task in (*self._ending.values(), *self._beginning.values()):
            task.cancel()
        self._ending.clear()
        self._beginning.clear()
        return asyncio.create_task(_all(self._end(pod, all_containers(pod), ground, grace_s)))

    async def restart_all(self, pod: Object) -> None:
        """The pod's network is another one: all of them end, and begin anew from the first init container on."""
        again = {container["name"] for container in init_containers(pod)}
        for state in self.states:
            await self._host.stop(state.id, 0)
            if state.name in again:
                await self._host.in_thread(self._host.runner.forget, state.id)
        self.states = [state for state in self.states if state.name not in again]

    def cannot(self, pod: Object, container: str, error: CannotStart, retry_s: float = RETRY_S) -> None:
        """Say once why the container waits, and look again later."""
        before = self._waits.get(container)
        if before is None or (before.reason, str(before)) != (error.reason, str(error)):
            self._host.events.warning(pod, EVENT_OF.get(error.reason, "Failed"), str(error))
        self._waits[container] = error
        if retry := self._retries.get(container):
            retry.cancel()
        self._retries[container] = asyncio.get_running_loop().call_later(retry_s, self._changed)

    def newest(self) -> dict[str, ContainerState]:
        """The newest attempt at each container, by its name."""
        return {state.name: state for state in sorted(self.states, key=_by_attempt)}

    def views(self, pod: Object) -> tuple[list[ContainerView], bool]:
        """All containers for the pod's status, and whether the init containers let the others run."""
        return [self._view(pod, one) for one in all_containers(pod)], is_initialized(
            pod, self.newest(), self._has_started
        )

    def stop(self) -> None:
        """Let everything be as it is."""
        self._health.stop()
        for task in (*self._beginning.values(), *self._ending.values()):
            task.cancel()
        for retry in self._retries.values():
            retry.cancel()

    async def _ensure_one(self, pod: Object, container: Container, ground: Ground, sandbox: PodSandbox | None) -> None:
        which = container["name"]
        attempts = self._attempts(which)
        current = attempts[-1] if attempts else None
        if current and (left := self._back_off(pod, attempts)):
            self.cannot(pod, which, *left)
            return
        attempt = current.attempt + 1 if current else 0
        start = partial(self._host.runner.start, pod, container, ground, sandbox, attempt)
        try:
            started = await self._host.in_thread(start)
        except CannotStart as error:
            self.cannot(pod, which, error)
            return
        self._waits.pop(which, None)
        self._learn(started)
        self._host.events.normal(pod, "Started", f"Started container {which}")
        for old in [state for state in attempts if state.attempt < attempt - 1]:
            await self._host.in_thread(self._host.runner.forget, old.id)

    def _back_off(self, pod: Object, attempts: Sequence[ContainerState]) -> tuple[CannotStart, float] | None:
        """Why an ended container is not started again yet, and how many seconds that goes on."""
        ended, before = attempts[-1], attempts[-2] if len(attempts) > 1 else None
        pause_s = restart_pause_s(ended, before, self._host.first_backoff_s)
        left = parse_time(ended.finished_at) + timedelta(seconds=pause_s) - datetime.now(UTC)
        if left <= timedelta():
            return None
        where = f"pod={name(pod)}_{namespace(pod)}({uid(pod)})"
        message = f"back-off {pause_s:g}s restarting failed container={ended.name} {where}"
        return CannotStart("CrashLoopBackOff", message), left.total_seconds()

    def _learn(self, started: ContainerState) -> None:
        others = [state for state in self.states if state.id != started.id]
        self.states = [*others, started]
        self.learned_at = asyncio.get_running_loop().time()

    async def _begin(self, pod: Object, container: Container, state: ContainerState, ground: Ground) -> None:
        """Run a container's postStart hook; until it is over the container does not count as running."""
        succeeded = await self._hooks.after_start(pod, container, state, ground)
        self._begun.add(state.id)
        if not succeeded:
            self._rejected.add(state.id)
        self._beginning.pop(state.id, None)
        self._changed()

    def _has_begun(self, pod: Object, container: Container, state: ContainerState) -> bool:
        """Whether its postStart hook is over: an agent before this one has then told that it runs."""
        if "postStart" not in (container.get("lifecycle") or {}) or state.id in self._begun:
            return True
        return state.id not in self._beginning and "running" in (told_of(pod, state).get("state") or {})

    def _has_started(self, state: ContainerState) -> bool:
        return self._health.is_started(state)

    def _judge(self, pod: Object, ground: Ground) -> None:
        """End the containers that a probe or their postStart hook has given up, and sidecars without containers."""
        newest = self.newest()
        for container in all_containers(pod):
            state = newest.get(container["name"])
            if state and state.is_running and state.id not in self._ending and (why := self._verdict(container, state)):
                grace_s = grace_of(pod, container.get(self._health.failed_probe(state), {}))
                self._end(pod, [container], ground, grace_s, why)
        if is_done(pod, newest):
            states = ((one, newest.get(one["name"])) for one in sidecars(pod))
            idle = [one for one, state in states if state and state.id not in self._ending]
            self._end(pod, idle, ground, grace_of(pod, {}))

    def _verdict(self, container: Container, state: ContainerState) -> str:
        if probe := self._health.failed_probe(state):
            return f"Container {container['name']} failed {WORDS[probe].lower()} probe, will be restarted"
        return f"Container {container['name']} failed its postStart hook" if state.id in self._rejected else ""

    def _end(
        self, pod: Object, which: Sequence[Container], ground: Ground, grace_s: float, why: str = ""
    ) -> list[asyncio.Task[None]]:
        """End those that run, each sidecar after all that were started after it."""
        newest, ending = self.newest(), list[asyncio.Task[None]]()
        for container in reversed(which):
            state = newest.get(container["name"])
            if state and state.is_running:
                self._host.events.normal(pod, "Killing", why or f"Stopping container {state.name}")
                before = tuple(ending) if is_sidecar(container) else ()
                task = asyncio.create_task(self._hooks.end(pod, container, state, ground, grace_s, before))
                task.add_done_callback(partial(self._ended, state.id))
                self._ending[state.id] = task
                ending.append(task)
        return ending

    def _ended(self, container_id: str, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        self._ending.pop(container_id, None)
        if error := task.exception():
            log.warning("container %s cannot be stopped: %s", container_id, error)
        asyncio.get_running_loop().call_later(RETRY_S if error else 0, self._changed)

    def _view(self, pod: Object, container: Container) -> ContainerView:
        attempts = self._attempts(container["name"])
        state = attempts[-1] if attempts else None
        is_running = bool(state and state.is_running and self._has_begun(pod, container, state))
        waits = None if state and state.is_running else self._waits.get(container["name"])
        return ContainerView(
            container,
            attempts,
            has_begun=is_running,
            is_started=bool(state and is_running and self._health.is_started(state)),
            is_ready=bool(state and is_running and self._health.is_ready(state)),
            waits_for=waits.status_reason if waits else "",
            message=str(waits) if waits else "",
        )

    def _attempts(self, which: str) -> list[ContainerState]:
        return sorted((state for state in self.states if state.name == which), key=_by_attempt)


async def _all(ending: Sequence[asyncio.Task[None]]) -> None:
    """A task of its own: what is given up for another end must not be missed as an error that nobody has seen."""
    await asyncio.gather(*ending)


def _by_attempt(state: ContainerState) -> int:
    return state.attempt
