"""The host agent: wires its host, registers its nodes, runs their pods, and answers for logs and exec.

    bootstrap spec ─▶ wire switch and control plane ─▶ API ─▶ ConfigMap kube-system/testbed ─▶ wire nodes ─▶ Nodes, pods

It may be killed at any moment. Started again it finds devices, sandboxes and containers as they are, and goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from contextlib import suppress

from testbed.agent.hostports import Doors, HostPorts
from testbed.agent.identity import Identity
from testbed.agent.loadbalancers import LoadBalancers
from testbed.agent.nodes import Nodes
from testbed.agent.pods import Pods
from testbed.agent.sandbox import Sandboxes
from testbed.agent.server import AgentServer
from testbed.agent.wiring import Wiring
from testbed.api.kinds import NODE
from testbed.api.objects import Key, Object, is_ready
from testbed.api.wellknown import AGENT_PORT, CLUSTER_CONFIG_MAP, SYSTEM_NAMESPACE
from testbed.client.informer import Informer
from testbed.client.protocol import Client
from testbed.errors import TestbedError
from testbed.topology.spec import ClusterSpec, NetworkSpec
from testbed.waiting import Backoff

log = logging.getLogger(__name__)

CONFIG = Key(SYSTEM_NAMESPACE, CLUSTER_CONFIG_MAP)
LOOK_S = 0.5
"""How often it is asked which namespaces there are: a container that was killed comes back with another one."""
RESYNC_S = 10.0
"""How often everything is looked at although nothing has told of a change: somebody may have deleted a device."""


class Agent:
    """The agent of one host; `tls` is what it shows to those who ask for logs and exec."""

    def __init__(
        self, client: Client, sandboxes: Sandboxes, wiring: Wiring, identity: Identity, tls: ssl.SSLContext
    ) -> None:
        self._identity = identity
        self._tls = tls
        self._wiring = wiring
        self._node_objects = Informer(client, NODE)
        self._nodes = Nodes(client, identity.host, self._node_objects)
        self._load_balancers = LoadBalancers(client, self._node_objects, wiring.balance)
        self._pods = Pods(client, sandboxes, wiring, identity)
        self._host_ports = HostPorts(self._pods.objects, Doors(sandboxes.place))
        self._server = AgentServer(self._pods.find, sandboxes, identity.token)
        self._changed = asyncio.Event()
        self._places: dict[str, int] = {}
        self._last_seen: dict[str, int] = {}
        """The namespace of every place, also of one that is gone for a moment."""
        self._spec: ClusterSpec | None = None
        self._network: NetworkSpec | None = None
        self._wired: set[str] = set()

    async def run(self, spec: ClusterSpec) -> None:
        """Until cancelled; `spec` is the bootstrap directory's, followed until the API tells another."""
        await self._wire(spec)
        self._pods.config_maps.observe(self._config_map_changed)
        self._node_objects.observe(self._node_changed)
        address = str(spec.host(self._identity.host).switch)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._server.serve(address, AGENT_PORT, self._tls))
            for informer in (self._node_objects, self._pods.config_maps, self._pods.objects):
                group.create_task(informer.run())
            group.create_task(self._pods.events.run())
            group.create_task(self._pods.run())
            group.create_task(self._nodes.renew_leases())
            group.create_task(self._load_balancers.run())
            group.create_task(self._host_ports.run())
            group.create_task(self._follow(spec))

    async def _follow(self, spec: ClusterSpec) -> None:
        """Keep wires, Nodes and pods in line with the spec that the API has."""
        backoff = Backoff()
        await asyncio.gather(self._node_objects.synced.wait(), self._pods.config_maps.synced.wait())
        while True:
            self._changed.clear()
            spec = self._current(spec)
            try:
                await self._wire(spec)
                await self._nodes.sync(spec, self._wired)
            except TestbedError as error:
                log.warning("%s", error)
                await backoff.wait()
                continue
            self._load_balancers.follow(spec.services.load_balancer_cidr)
            self._pods.follow(spec, self._wired)
            self._host_ports.follow(node for node in spec.nodes_of(self._identity.host) if node.name in self._wired)
            if spec.network != self._network:  # another backend leaves pods another MTU
                self._pods.rewire()
                self._network = spec.network
            if self._wired != {node.name for node in spec.nodes_of(self._identity.host)}:
                await backoff.wait()  # a holder that does not exist yet tells nobody when it does
                continue
            backoff.reset()
            await self._rest(spec)

    async def _rest(self, spec: ClusterSpec) -> None:
        """Until something has changed, a place has another namespace, or it is time to look at everything."""
        for _ in range(round(RESYNC_S / LOOK_S)):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_S)
                return
            if await asyncio.to_thread(self._wiring.places, spec) != self._places:
                return
        self._spec = None

    async def _wire(self, spec: ClusterSpec) -> None:
        """Everything on a new spec, on a new namespace and on a resync; nothing otherwise."""
        places = await asyncio.to_thread(self._wiring.places, spec)
        if spec == self._spec and places == self._places:
            return
        self._wired = await asyncio.to_thread(self._wiring.sync, spec)
        log.info("wired: %s", ", ".join(sorted(self._wired)) or "no node yet")
        if any(self._last_seen.get(place, number) != number for place, number in places.items()):
            self._pods.rewire()
        self._spec, self._places, self._last_seen = spec, places, self._last_seen | places

    def _current(self, known: ClusterSpec) -> ClusterSpec:
        text = ((self._pods.config_maps.items.get(CONFIG) or {}).get("data") or {}).get("spec.json")
        return ClusterSpec.from_json(json.loads(text)) if text else known

    def _config_map_changed(self, which: Key, _old: Object | None, _new: Object | None) -> None:
        if which == CONFIG:
            self._changed.set()

    def _node_changed(self, which: Key, _old: Object | None, new: Object | None) -> None:
        """Somebody has deleted a node of ours, or believes that it is dead."""
        if which.name in self._wired and (new is None or not is_ready(new)):
            self._changed.set()
