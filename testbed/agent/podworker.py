"""One pod's life on its host: a loop that looks at what should be and what is, and does what is missing.

    bound to our node ─▶ files, sandbox, link ─▶ containers ─▶ status ─┐
                              ▲                                        │ a change of the pod, a container, a probe,
                              └────────────────────────────────────────┘ a ConfigMap; a back-off that is over
    deletionTimestamp ─▶ stop, with grace ─▶ remove ─▶ DELETE with grace 0

It keeps nothing that an agent started anew could not find again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Address
from typing import Any, TypeVar

from testbed.agent.events import Events
from testbed.agent.ipam import Addresses
from testbed.agent.podrun import CannotStart, Ground, PodRunner
from testbed.agent.podstatus import ContainerView, PodView, differs, pod_status, will_run_again
from testbed.agent.readiness import Probing, Readiness
from testbed.agent.sandbox import ContainerState, PodSandbox
from testbed.api.kinds import POD
from testbed.api.objects import Object, is_deleting, metadata, name, namespace, now, parse_time, spec, status
from testbed.client.informer import Informer
from testbed.client.protocol import Client
from testbed.errors import ApiError, Conflict, NotFound, TestbedError
from testbed.topology.spec import ClusterSpec, NodeSpec
from testbed.waiting import Backoff

log = logging.getLogger(__name__)

T = TypeVar("T")

STABLE = timedelta(seconds=60)
"""A container that lived this long is restarted at once, as if it had never died before."""
LONGEST_BACKOFF_S = 300
EVENT_OF = {"FailedMount": "FailedMount", "CrashLoopBackOff": "BackOff"}
"""The Event's reason where it is not Failed."""
RETRY_S = 5.0
"""How soon something that could not be had is asked for again, when nothing tells that it is there."""


@dataclass
class PodHost:
    """What all workers of a host share."""

    client: Client
    runtime: str
    runner: PodRunner
    addresses: Addresses
    events: Events
    pods: Informer
    work: Executor
    """Threads for what takes milliseconds."""
    stops: Executor
    """Threads for what waits for a program to end."""
    starting: asyncio.Semaphore
    """How many pods may work on their parts at a time: more would only take turns."""
    ground: Callable[[Object], tuple[ClusterSpec, NodeSpec] | None]
    """The cluster and the node of a pod; None while the node is not wired."""
    probing: Probing

    async def in_thread(self, call: Callable[..., T], *args: object) -> T:
        """Run something short that blocks."""
        return await asyncio.get_running_loop().run_in_executor(self.work, partial(call, *args))


class PodWorker:
    """One pod. `pod` gives the object as it is now, None when it is gone; `node` is where it is, or was, bound."""

    def __init__(self, host: PodHost, pod_uid: str, node: str, pod: Callable[[], Object | None]) -> None:
        self.containers: Sequence[ContainerState] = ()
        """As the runtime last showed them."""
        self.learned_at = 0.0
        """When this worker last started a container itself (loop time): an older look at the runtime knows less."""
        self._host = host
        self._uid = pod_uid
        self._node = node
        self._pod = pod
        self._awake = asyncio.Event()
        self._is_wired = False
        self._sandbox: PodSandbox | None = None
        self._waits: dict[str, CannotStart] = {}
        self._readiness = Readiness(self.wake, host.probing)

    def wake(self) -> None:
        """Something about the pod has changed."""
        self._awake.set()

    def rewire(self) -> None:
        """The sandbox may be gone, or another one: make sure of it."""
        self._is_wired = False
        self.wake()

    def see(self, sandbox: PodSandbox) -> None:
        """The sandbox as the runtime shows it: one that was lost may have come back with another namespace."""
        if self._sandbox and self._sandbox.netns != sandbox.netns:
            self.rewire()

    async def run(self) -> None:
        """Work until the pod is gone from this host. What fails is told once, and tried again ever more slowly."""
        backoff, told = Backoff(), ""
        try:
            while True:
                self._awake.clear()
                try:
                    if await self._reconcile():
                        return
                    backoff.reset()
                    told = ""
                    await self._awake.wait()
                except TestbedError as error:
                    if str(error) != told:
                        self._tell(error)
                    told = str(error)
                    await backoff.wait()
        finally:
            self._readiness.stop()

    async def _reconcile(self) -> bool:
        """Do what is missing; True when nothing is left of the pod."""
        pod = self._pod()
        if pod is None:
            await self._remove()
            return True
        if is_deleting(pod):
            await self._terminate(pod)
            return True
        where = self._host.ground(pod)
        if where is not None and status(pod).get("phase") not in ("Succeeded", "Failed"):
            ground = self._stand(pod, *where)
            async with self._host.starting:
                await self._ensure_parts(pod, ground)
            await self._publish(self._pod() or pod, ground)
        return False

    def _stand(self, pod: Object, cluster: ClusterSpec, node: NodeSpec) -> Ground:
        if spec(pod).get("hostNetwork") or node.pod_cidr is None:
            return Ground(cluster, node, node.address.ip)
        held = status(pod).get("podIP")
        preferred = IPv4Address(held) if held else None
        return Ground(cluster, node, self._host.addresses.take(self._uid, node.pod_cidr, preferred))

    async def _ensure_parts(self, pod: Object, ground: Ground) -> None:
        if not self._is_wired:
            await self._wire(pod, ground)
        containers = spec(pod)["containers"]
        if spec(pod).get("volumes"):
            try:
                await self._host.in_thread(self._host.runner.write_volumes, pod, ground)
            except CannotStart as error:
                for container in containers:
                    self._cannot(pod, container["name"], error)
                return
        for container in containers:
            await self._ensure_container(pod, container, ground)
        running = {state.name: state for state in self._newest().values() if state.is_running}
        self._readiness.follow(pod, ground, running)

    async def _wire(self, pod: Object, ground: Ground) -> None:
        """Sandbox and link; a sandbox that was lost took its containers' network along, so they start anew in this."""
        sandbox = await self._host.in_thread(self._host.runner.ensure_network, pod, ground)
        if self._sandbox and sandbox and sandbox.netns != self._sandbox.netns:
            self._host.events.normal(pod, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
            for state in self.containers:
                await self._host.in_thread(self._host.runner.stop, state.id, 0)
        self._sandbox, self._is_wired = sandbox, True

    async def _ensure_container(self, pod: Object, container: dict[str, Any], ground: Ground) -> None:
        which = container["name"]
        current = self._newest().get(which)
        if current and (current.is_running or not will_run_again(pod, current)):
            self._waits.pop(which, None)
            return
        if current and (delay := restart_delay_s(current)):
            message = f"back-off restarting failed container {which} in pod {namespace(pod)}/{name(pod)}"
            self._cannot(pod, which, CannotStart("CrashLoopBackOff", message), retry_s=delay)
            return
        attempt = current.attempt + 1 if current else 0
        start = partial(self._host.runner.start, pod, container, ground, self._sandbox, attempt)
        try:
            started = await self._host.in_thread(start)
        except CannotStart as error:
            self._cannot(pod, which, error)
            return
        self._waits.pop(which, None)
        self._learn(started)
        self._host.events.normal(pod, "Started", f"Started container {which}")
        for old in [state for state in self.containers if state.name == which and state.attempt < attempt - 1]:
            await self._host.in_thread(self._host.runner.forget, old.id)

    def _learn(self, started: ContainerState) -> None:
        others = [state for state in self.containers if state.id != started.id]
        self.containers = [*others, started]
        self.learned_at = asyncio.get_running_loop().time()

    def _cannot(self, pod: Object, container: str, error: CannotStart, retry_s: float = RETRY_S) -> None:
        """Say once why the container waits, and look again later."""
        before = self._waits.get(container)
        if before is None or (before.reason, str(before)) != (error.reason, str(error)):
            self._host.events.warning(pod, EVENT_OF.get(error.reason, "Failed"), str(error))
        self._waits[container] = error
        asyncio.get_running_loop().call_later(retry_s, self.wake)

    async def _publish(self, pod: Object, ground: Ground) -> None:
        newest = self._newest()
        views = []
        for container in spec(pod)["containers"]:
            which = container["name"]
            state, waits = newest.get(which), self._waits.get(which)
            attempts = sorted((s for s in self.containers if s.name == which), key=lambda s: s.attempt)
            is_ready = bool(state and state.is_running and self._readiness.is_ready(state))
            why = (waits.status_reason, str(waits)) if waits else ("", "")
            views.append(ContainerView(which, container["image"], attempts, is_ready, *why))
        view = PodView(self._host.runtime, str(ground.node.address.ip), str(ground.address), now(), views)
        wanted = pod_status(pod, view)
        if not differs(status(pod), wanted):
            return
        try:
            written = await self._host.client.patch(
                POD, name(pod), {"status": wanted}, namespace(pod), subresource="status"
            )
        except NotFound:
            return
        self._host.pods.learn(written)

    async def _terminate(self, pod: Object) -> None:
        """Stop what runs, within the grace that the deletion leaves, and let go of the object."""
        running = [state for state in self.containers if state.is_running]
        for state in running:
            self._host.events.normal(pod, "Killing", f"Stopping container {state.name}")
        grace_s = metadata(pod).get("deletionGracePeriodSeconds") or 0
        stopping = self._stop(running, grace_s)
        while not stopping.done():
            self._awake.clear()
            waking = asyncio.ensure_future(self._awake.wait())
            await asyncio.wait((stopping, waking), return_when=asyncio.FIRST_COMPLETED)
            waking.cancel()
            current = self._pod()
            left_s = (metadata(current).get("deletionGracePeriodSeconds") or 0) if current else 0
            if left_s < grace_s and not stopping.done():
                grace_s = left_s
                await self._stop(running, grace_s)
        await stopping
        await self._remove()
        with suppress(NotFound, Conflict):
            await self._host.client.delete(POD, name(pod), namespace(pod), grace_period_s=0, uid=self._uid)

    def _stop(self, containers: Sequence[ContainerState], grace_s: float) -> asyncio.Future[list[None]]:
        loop, stop = asyncio.get_running_loop(), self._host.runner.stop
        return asyncio.gather(*(loop.run_in_executor(self._host.stops, stop, c.id, grace_s) for c in containers))

    async def _remove(self) -> None:
        self._readiness.stop()
        await self._host.in_thread(self._host.runner.remove, self._uid, self._node)
        self._host.addresses.release(self._uid)

    def _newest(self) -> dict[str, ContainerState]:
        return {state.name: state for state in sorted(self.containers, key=lambda state: state.attempt)}

    def _tell(self, error: TestbedError) -> None:
        pod = self._pod()
        if isinstance(error, ApiError):
            log.warning("pod %s: %s", name(pod) if pod else self._uid, error)
        elif pod:
            self._host.events.warning(pod, "FailedSync", str(error))
        else:
            log.warning("pod %s, which is gone: %s", self._uid, error)


def restart_delay_s(ended: ContainerState) -> float:
    """How long an ended container still has to wait: nothing after its first end, then 1 s, 2 s, 4 s and so on."""
    finished = parse_time(ended.finished_at)
    if ended.attempt == 0 or finished - parse_time(ended.started_at) >= STABLE:
        return 0.0
    pause = timedelta(seconds=min(2 ** min(ended.attempt - 1, 30), LONGEST_BACKOFF_S))
    return max(0.0, (finished + pause - datetime.now(UTC)).total_seconds())
