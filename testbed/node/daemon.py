"""The node daemon: for one node, or for several whose namespaces this process can enter.

Three loops to a node, each of which makes a whole true again and again: the network (bridge, backend, peers), the proxy
(masquerading, Services), and the proof that full-size packets arrive; beside them, answers over HTTP. What the cluster
should be comes from informers that all nodes share; what the kernel does of its own accord (a device deleted by hand)
from a netlink subscription.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from testbed.client.protocol import Client
from testbed.errors import CheckFailed
from testbed.node.cluster import ClusterView
from testbed.node.handles import Handles
from testbed.node.loop import keep
from testbed.node.network import NodeNetwork, Place
from testbed.node.proof import Proof, prove
from testbed.node.proxy import NodeProxy
from testbed.node.reports import Leases, write_condition
from testbed.node.rules import location

log = logging.getLogger(__name__)

NETWORK_RESYNC_S = 10.0
"""For what no event tells: a neighbour or forwarding entry deleted by hand."""
RULES_CHECK_S = 2.0
"""After this time at the most, rules that a stranger has changed are loaded again."""
PROOF_TIMEOUT_S = 0.1
"""Short, because a thread waits for it that other nodes may need to come up."""
PROOF_PATIENCE = 10
"""Attempts, two seconds in all, before the Node says that its network is unavailable: peers may just be coming up."""

Locate = Callable[[str], Handles | None]
"""Opens the kernel of the node of that name; None where it is not, or not yet, here."""


class NodeDaemon:
    """One node."""

    def __init__(self, name: str, handles: Handles, view: ClusterView, client: Client, leases: Leases) -> None:
        self.name = name
        self._handles, self._view, self._client, self._leases = handles, view, client, leases
        self._network = NodeNetwork(handles.links, handles.ensure_sysctls)
        self._proxy = NodeProxy(name, handles, view.changes)
        self._network_wake, self._rules_wake, self._proof_wake = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._place: Place | None = None
        self._tunnel = ""
        self._proof: Proof | None = None
        self._told: Proof | None = None
        """The one that is written into the Node."""
        self._attempts = 0

    async def run(self) -> None:
        """Until cancelled; the kernel is left as it is, so that traffic goes on."""
        with (
            self._view.network_changed.wakes(self._network_wake),
            self._view.services_changed.wakes(self._rules_wake),
            self._losses_wake(),
        ):
            async with asyncio.TaskGroup() as tasks:
                node = f"node {self.name}"
                tasks.create_task(
                    keep(self._sync_network, self._network_wake, every_s=NETWORK_RESYNC_S, what=f"{node}: network")
                )
                tasks.create_task(
                    keep(self._sync_rules, self._rules_wake, every_s=RULES_CHECK_S, what=f"{node}: rules")
                )
                tasks.create_task(keep(self._prove, self._proof_wake, every_s=NETWORK_RESYNC_S, what=f"{node}: proof"))
                tasks.create_task(keep(self._proxy.answer, asyncio.Event(), every_s=1.0, what=f"{node}: answers"))

    async def close(self) -> None:
        """Answer nobody any more; to be called after `run`."""
        await self._proxy.close()

    async def _sync_network(self) -> None:
        node, spec = self._view.nodes.get(self.name), self._view.spec
        if node is None or spec is None or not self._view.is_synced:
            return
        place = Place(node, self._view.peers(self.name), spec)
        self._tunnel = await asyncio.to_thread(self._network.sync, place)
        if place != self._place:
            self._place = place
            self._rules_wake.set()
            self._proof_wake.set()

    async def _sync_rules(self) -> None:
        if self._place is None or not self._view.services.is_synced:
            return
        wanted = self._view.services.snapshot(location(self._place), self._proxy.sequence)
        await self._proxy.sync(self._place, self._tunnel, wanted)
        self._leases.synced(self.name, wanted.version)

    async def _prove(self) -> None:
        place, before, told = self._place, self._proof, self._told
        if place is None or (told and told.place == place and told.is_complete):
            return
        is_same_network = before and (before.place.node, before.place.spec) == (place.node, place.spec)
        reached = before.reached if before and is_same_network else ()
        self._proof = proof = await asyncio.to_thread(
            prove, self._handles.echo, place, reached, timeout_s=PROOF_TIMEOUT_S
        )
        self._attempts = 0 if proof.is_complete else self._attempts + 1
        if 0 < self._attempts < PROOF_PATIENCE:
            self._proof_wake.set()
            return
        await write_condition(self._client, self.name, proof.condition())
        self._told = proof
        if not proof.is_complete:
            raise CheckFailed(f"no full-size packet: {'; '.join(proof.failures)}")

    @contextmanager
    def _losses_wake(self) -> Iterator[None]:
        loop, losses = asyncio.get_running_loop(), self._handles.losses

        def listen() -> None:
            if losses.lost():
                self._network_wake.set()

        loop.add_reader(losses.fileno(), listen)
        try:
            yield
        finally:
            loop.remove_reader(losses.fileno())


@dataclass(frozen=True)
class _Served:
    handles: Handles
    task: asyncio.Task[None]


class NodeDaemons:
    """All nodes that this process serves, as they come and go."""

    def __init__(self, client: Client, locate: Locate) -> None:
        self._client, self._locate = client, locate
        self._view, self._leases = ClusterView(client), Leases(client)
        self._served: dict[str, _Served] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        with self._view.network_changed.wakes(self._wake):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._view.run())
                tasks.create_task(self._leases.run())
                # A namespace may come after its Node, or be another one from now on, and nobody tells.
                await keep(partial(self._sync, tasks), self._wake, every_s=1.0, what="nodes")

    async def _sync(self, tasks: asyncio.TaskGroup) -> None:
        nodes = self._view.nodes.keys()
        for name in [name for name, each in self._served.items() if name not in nodes or not each.handles.is_current()]:
            await self._stop(name)
        for name in nodes - self._served.keys():
            if handles := self._locate(name):
                log.info("node %s: serving it", name)
                daemon = NodeDaemon(name, handles, self._view, self._client, self._leases)
                self._served[name] = _Served(handles, tasks.create_task(_serve(daemon, handles)))

    async def _stop(self, name: str) -> None:
        log.info("node %s: it is gone", name)
        task = self._served.pop(name).task
        task.cancel()
        await asyncio.wait([task])
        self._view.services.forget(name)
        self._leases.forget(name)


async def _serve(daemon: NodeDaemon, handles: Handles) -> None:
    try:
        await daemon.run()
    finally:
        await daemon.close()
        handles.close()
