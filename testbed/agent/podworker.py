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
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address

from testbed.agent.hooks import grace_left_s
from testbed.agent.podcontainers import PodContainers
from testbed.agent.podhost import PodHost
from testbed.agent.podplan import all_containers
from testbed.agent.podrun import CannotStart, Ground
from testbed.agent.podstatus import PodView, differs, pod_status
from testbed.agent.sandbox import PodSandbox
from testbed.api.kinds import POD
from testbed.api.objects import Object, is_deleting, metadata, name, namespace, now, spec, status
from testbed.errors import ApiError, Conflict, NotFound, TestbedError
from testbed.topology.spec import ClusterSpec, NodeSpec
from testbed.waiting import Backoff

log = logging.getLogger(__name__)

TELL_AGAIN_S = 1.0
"""How soon the status of a pod that ends is told again, where the API could not be reached."""


class PodWorker:
    """One pod. `pod` gives the object as it is now, None when it is gone; `node` is where it is, or was, bound."""

    def __init__(self, host: PodHost, pod_uid: str, node: str, pod: Callable[[], Object | None]) -> None:
        self.containers = PodContainers(host, self.wake)
        self._host = host
        self._uid = pod_uid
        self._node = node
        self._pod = pod
        self._awake = asyncio.Event()
        self._is_wired = False
        self._sandbox: PodSandbox | None = None

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
            self.containers.stop()

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
        if spec(pod).get("volumes"):
            try:
                await self._host.in_thread(self._host.runner.write_volumes, pod, ground)
            except CannotStart as error:
                for container in all_containers(pod):
                    self.containers.cannot(pod, container["name"], error)
                self.containers.attend(pod, ground)
                return
        await self.containers.ensure(pod, ground, self._sandbox)

    async def _wire(self, pod: Object, ground: Ground) -> None:
        """Sandbox and link; a sandbox that was lost took its containers' network along, so they start anew in this."""
        sandbox = await self._host.in_thread(self._host.runner.ensure_network, pod, ground)
        if self._sandbox and sandbox and sandbox.netns != self._sandbox.netns:
            self._host.events.normal(pod, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
            await self.containers.restart_all(pod)
        self._sandbox, self._is_wired = sandbox, True

    async def _publish(self, pod: Object, ground: Ground) -> None:
        views, is_initialized = self.containers.views(pod)
        facts = PodView(
            self._host.runtime, str(ground.node.address.ip), str(ground.address), now(), views, is_initialized
        )
        wanted = pod_status(pod, facts)
        if not differs(status(pod), wanted):
            return
        patch = {"metadata": {"uid": self._uid}, "status": wanted}
        try:
            written = await self._host.client.patch(POD, name(pod), patch, namespace(pod), subresource="status")
        except (NotFound, Conflict):  # it is gone, or the name is another pod's by now
            return
        self._host.pods.learn(written)

    async def _terminate(self, pod: Object) -> None:
        """End what runs, within the grace that the deletion leaves, and let go of the object."""
        where = self._host.ground(pod)
        running = [state.id for state in self.containers.states if state.is_running]
        if running and where is not None:
            await self._end(pod, self._stand(pod, *where))
        elif running:  # its node is no more: there is nowhere from which to reach its hooks
            grace_s = grace_left_s(pod)
            await asyncio.gather(*(self._host.stop(container_id, grace_s) for container_id in running))
        await self._remove()
        with suppress(NotFound, Conflict):
            await self._host.client.delete(POD, name(pod), namespace(pod), grace_period_s=0, uid=self._uid)

    async def _end(self, pod: Object, ground: Ground) -> None:
        """Until all containers have ended. Meanwhile the pod's status goes on telling whether they are ready."""
        grace_s = grace_left_s(pod)
        ending = self.containers.end(pod, ground, grace_s)
        while not ending.done():
            self._awake.clear()
            if current := self._pod():
                self.containers.attend(current, ground, is_ending=True)
                with suppress(ApiError):  # told again soon: raised, it would begin the end anew, hooks and all
                    await self._publish(current, ground)
            waking = asyncio.ensure_future(self._awake.wait())
            await asyncio.wait((ending, waking), timeout=TELL_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
            waking.cancel()
            current = self._pod()
            left_s = float(metadata(current).get("deletionGracePeriodSeconds") or 0) if current else 0.0
            if left_s < grace_s and not ending.done():
                grace_s = left_s
                ending = self.containers.end(current or pod, ground, grace_s)
        await ending

    async def _remove(self) -> None:
        self.containers.stop()
        await self._host.in_thread(self._host.runner.remove, self._uid, self._node)
        self._host.addresses.release(self._uid)

    def _tell(self, error: TestbedError) -> None:
        pod = self._pod()
        if isinstance(error, ApiError):
            log.warning("pod %s: %s", name(pod) if pod else self._uid, error)
        elif pod:
            self._host.events.warning(pod, "FailedSync", str(error))
        else:
            log.warning("pod %s, which is gone: %s", self._uid, error)
