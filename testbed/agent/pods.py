"""All pods of one host: a worker each, woken by what changes in the API, at the runtime and in the cluster's spec."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from testbed.agent.actions import NodeSockets
from testbed.agent.events import Events
from testbed.agent.health import Probing
from testbed.agent.identity import Identity
from testbed.agent.ipam import Addresses
from testbed.agent.podhost import PodHost
from testbed.agent.podplan import FIRST_BACKOFF_S
from testbed.agent.podrun import PodRunner
from testbed.agent.podworker import PodWorker
from testbed.agent.sandbox import ContainerState, ExecSession, PodSandbox, Sandboxes
from testbed.agent.wiring import Wiring
from testbed.api.kinds import CONFIG_MAP, POD
from testbed.api.objects import Key, Object, spec, uid
from testbed.client.informer import Informer
from testbed.client.protocol import Client
from testbed.errors import NotFound, TestbedError
from testbed.topology.spec import ClusterSpec, NodeSpec
from testbed.waiting import Backoff

log = logging.getLogger(__name__)

AT_A_TIME = 8
STOPPING_THREADS = 128
LOOK_AGAIN_S = 2.0
"""The longest that a look at the runtime blocks: with it, the agent's own end waits."""


class Pods:
    """The pods bound to this host's nodes."""

    def __init__(
        self,
        client: Client,
        sandboxes: Sandboxes,
        wiring: Wiring,
        identity: Identity,
        *,
        first_backoff_s: float = FIRST_BACKOFF_S,
    ) -> None:
        self.objects = Informer(client, POD)
        self._by_uid = self.objects.index(lambda pod: [uid(pod)])
        self.config_maps = Informer(client, CONFIG_MAP)
        self.events = Events(client)
        self._sandboxes = sandboxes
        self._host_name = identity.host
        self._cluster: ClusterSpec | None = None
        self._nodes: dict[str, NodeSpec] = {}
        self._told = asyncio.Event()
        """Set once it is known which nodes are ours."""
        self._has_looked = False
        """Whether it is known what runs, and which addresses are held: no pod's worker may begin before."""
        self._wired: frozenset[str] = frozenset()
        self._sockets: dict[str, NodeSockets] = {}
        self._workers: dict[str, PodWorker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = ThreadPoolExecutor(1, "watch")
        self._runner = PodRunner(sandboxes, wiring.links, identity, self._config_map)
        self._shared = PodHost(
            client=client,
            runtime=identity.runtime,
            runner=self._runner,
            addresses=Addresses(),
            events=self.events,
            pods=self.objects,
            work=ThreadPoolExecutor(AT_A_TIME, "pod"),
            stops=ThreadPoolExecutor(STOPPING_THREADS, "stop"),
            starting=asyncio.Semaphore(AT_A_TIME),
            ground=self._ground,
            probing=Probing(
                self._sockets_of, self._execute, lambda pod, why: self.events.warning(pod, "Unhealthy", why)
            ),
            first_backoff_s=first_backoff_s,
        )

    def follow(self, cluster: ClusterSpec, wired: Iterable[str]) -> None:
        """The cluster as it is wired now: pods of nodes that have come may start."""
        self._cluster = cluster
        self._nodes = {node.name: node for node in cluster.nodes_of(self._host_name)}
        self._wired = frozenset(wired)
        self._told.set()
        for gone in self._sockets.keys() - self._nodes.keys():
            self._sockets.pop(gone).close()
        for pod in self.objects.items.values():
            self._see(pod)

    def rewire(self) -> None:
        """A node has come back with another namespace: every pod makes sure of its link, and probes go there."""
        for sockets in self._sockets.values():
            sockets.close()
        self._sockets.clear()
        for worker in self._workers.values():
            worker.rewire()

    def find(self, which: Key, container: str, *, previous: bool = False) -> ContainerState:
        """The newest attempt at a pod's container, or the one before. NotFound."""
        pod = self.objects.items.get(which)
        worker = self._workers.get(uid(pod)) if pod else None
        states = sorted(
            (state for state in (worker.containers.states if worker else ()) if state.name == container),
            key=lambda state: state.attempt,
        )
        if len(states) <= previous:
            raise NotFound(f"container {container!r} of pod {which} has not been started")
        return states[-1 - previous]

    async def run(self) -> None:
        """Take over what runs, then work until cancelled. The informers and events are run by the caller."""
        await asyncio.gather(self.objects.synced.wait(), self.config_maps.synced.wait(), self._told.wait())
        looked_at = asyncio.get_running_loop().time()
        sandboxes, states = await self._first_look()
        self._adopt(sandboxes)
        self._has_looked = True
        self.objects.observe(self._pod_changed)
        self.config_maps.observe(self._config_map_changed)
        for pod in self.objects.items.values():
            self._see(pod)
        self._show(states, looked_at)  # before any worker takes a step: what runs must not be taken for missing
        for orphan in {sandbox.pod_uid for sandbox in sandboxes} - self._workers.keys():
            self._start_worker(orphan, "")
        try:
            await self._watch_containers()
        finally:
            for task in self._tasks:
                task.cancel()
            for threads in (self._watching, self._shared.work, self._shared.stops):
                threads.shutdown(wait=False, cancel_futures=True)

    async def _first_look(self) -> tuple[list[PodSandbox], list[ContainerState]]:
        backoff = Backoff()
        while True:
            try:
                return await asyncio.to_thread(lambda: (self._sandboxes.pods(), self._sandboxes.containers()))
            except TestbedError as error:
                log.warning("what runs cannot be seen yet: %s", error)
                await backoff.wait()

    def _adopt(self, sandboxes: Iterable[PodSandbox]) -> None:
        """Know which addresses are held before any is given out."""
        for sandbox in sandboxes:
            if address := self._runner.address(sandbox.pod_uid):
                self._shared.addresses.adopt(sandbox.pod_uid, address)

    async def _watch_containers(self) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        while True:
            looked_at = loop.time()
            try:
                self._show(await loop.run_in_executor(self._watching, self._sandboxes.containers), looked_at)
                for sandbox in await loop.run_in_executor(self._watching, self._sandboxes.pods):
                    if worker := self._workers.get(sandbox.pod_uid):
                        worker.see(sandbox)
                await loop.run_in_executor(self._watching, self._sandboxes.wait_for_change, LOOK_AGAIN_S)
                backoff.reset()
            except TestbedError as error:
                log.warning("containers cannot be seen: %s", error)
                await backoff.wait()

    def _show(self, states: Iterable[ContainerState], looked_at: float) -> None:
        """Tell each worker what its containers do now; those of a pod that nobody knows get one, which removes them."""
        found: dict[str, list[ContainerState]] = {}
        for state in states:
            found.setdefault(state.pod_uid, []).append(state)
        for pod_uid in found.keys() - self._workers.keys():
            self._start_worker(pod_uid, "")
        for pod_uid, worker in self._workers.items():
            mine = found.get(pod_uid, [])
            containers = worker.containers
            if containers.learned_at < looked_at and sorted(mine, key=_by_id) != sorted(containers.states, key=_by_id):
                containers.states = mine
                worker.wake()

    def _pod_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        for obj in (old, new):
            if obj and (worker := self._workers.get(uid(obj))):
                worker.wake()
        if new:
            self._see(new)

    def _config_map_changed(self, which: Key, _old: Object | None, _new: Object | None) -> None:
        for key, pod in self.objects.items.items():
            if key.namespace == which.namespace and (worker := self._workers.get(uid(pod))):
                worker.wake()

    def _see(self, pod: Object) -> None:
        """A pod of our nodes has a worker, which is awake."""
        node = spec(pod).get("nodeName", "")
        if worker := self._workers.get(uid(pod)):
            worker.wake()
        elif node in self._nodes and self._has_looked:
            self._start_worker(uid(pod), node)

    def _start_worker(self, pod_uid: str, node: str) -> None:
        worker = self._workers[pod_uid] = PodWorker(self._shared, pod_uid, node, lambda: self._object(pod_uid))
        task = asyncio.create_task(worker.run(), name=f"pod {pod_uid}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(pod_uid, done))

    def _ended(self, pod_uid: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._workers.pop(pod_uid, None)
        if not task.cancelled() and (error := task.exception()):
            log.error("the worker of pod %s died", pod_uid, exc_info=error)

    def _object(self, pod_uid: str) -> Object | None:
        return next(iter(self._by_uid[pod_uid]), None)

    def _ground(self, pod: Object) -> tuple[ClusterSpec, NodeSpec] | None:
        node = spec(pod).get("nodeName", "")
        return (self._cluster, self._nodes[node]) if self._cluster and node in self._wired else None

    def _config_map(self, space: str, which: str) -> Mapping[str, str]:
        found = self.config_maps.items.get(Key(space, which))
        if found is None:
            raise NotFound(f"ConfigMap {space}/{which} does not exist")
        return found.get("data") or {}

    def _sockets_of(self, node: str) -> NodeSockets:
        if node not in self._sockets:
            place = self._sandboxes.place(node)
            if place is None:
                raise NotFound(f"node {node} has no namespace")
            self._sockets[node] = NodeSockets(place)
        return self._sockets[node]

    async def _execute(self, container_id: str, argv: Sequence[str]) -> int:
        in_thread = asyncio.get_running_loop().run_in_executor
        start = partial(self._sandboxes.exec, container_id, argv, stdin=False, tty=True)
        starting = in_thread(self._shared.stops, start)
        try:
            session = await asyncio.shield(starting)
            return await in_thread(self._shared.stops, _run_to_end, session)
        except asyncio.CancelledError:
            starting.add_done_callback(_kill)
            raise


def _kill(starting: asyncio.Future[ExecSession]) -> None:
    """End a program that has taken too long, as soon as it has begun."""
    if not starting.exception():
        starting.result().kill()


def _run_to_end(session: ExecSession) -> int:
    with session.stdout as output:
        while output.read(65536):
            pass
    return session.wait()


def _by_id(state: ContainerState) -> str:
    return state.id
