"""What a node daemon knows of the cluster: a few informers, shared by all nodes that this process serves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager

from testbed.api.kinds import CONFIG_MAP, ENDPOINT_SLICE, NODE, SERVICE
from testbed.api.objects import Key, Object
from testbed.api.wellknown import CLUSTER_CONFIG_MAP, SYSTEM_NAMESPACE
from testbed.client.informer import Informer
from testbed.client.protocol import Client
from testbed.network.nodenet import NodeNet, parse_node, peers_of
from testbed.node.changes import Changes
from testbed.proxy.services import Services
from testbed.topology.spec import ClusterSpec


class Signal:
    """Tells everyone who listens that something has changed; what, they see for themselves."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Event] = set()

    @contextmanager
    def wakes(self, listener: asyncio.Event) -> Iterator[None]:
        """Set this event at every change, from now until the block ends."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    def fire(self) -> None:
        """Something has changed."""
        for listener in self._listeners:
            listener.set()


class ClusterView:
    """Services, nodes and settings as this process last saw them."""

    def __init__(self, client: Client) -> None:
        services, slices = Informer(client, SERVICE), Informer(client, ENDPOINT_SLICE)
        self._nodes = Informer(client, NODE)
        settings = f"metadata.name={CLUSTER_CONFIG_MAP}"
        self._settings = Informer(client, CONFIG_MAP, SYSTEM_NAMESPACE, field_selector=settings)
        self._informers = (services, slices, self._nodes, self._settings)
        self.services = Services(services, slices)
        self.changes = Changes()
        self.changes.follow(services, slices)
        self.nodes: dict[str, NodeNet] = {}
        """Every node of the pod network, by name."""
        self.spec: ClusterSpec | None = None
        """None until it has been read."""
        self.services_changed, self.network_changed = Signal(), Signal()
        for informer in (services, slices):
            informer.on_change(lambda _: self.services_changed.fire())
        self._nodes.observe(self._follow_node)
        self._settings.observe(self._follow_settings)

    async def run(self) -> None:
        """Keep everything up to date until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for informer in self._informers:
                tasks.create_task(informer.run())
            # A first list may be empty, and then nothing else tells that it has come.
            for informer in self._informers:
                await informer.synced.wait()
            self.network_changed.fire()
            self.services_changed.fire()

    def peers(self, name: str) -> list[NodeNet]:
        """Every other node, in a fixed order; nothing is known before the first list."""
        return peers_of(name, self.nodes.values())

    @property
    def is_synced(self) -> bool:
        """Whether the nodes have been listed. Before that, a sync would take peers away."""
        return self._nodes.synced.is_set()

    def _follow_node(self, which: Key, _: Object | None, node: Object | None) -> None:
        """Most changes of a Node are heartbeats and conditions, and concern nobody here."""
        before = self.nodes.pop(which.name, None)
        after = parse_node(node) if node else None
        if after:
            self.nodes[which.name] = after
        if after != before:
            self.network_changed.fire()

    def _follow_settings(self, _: Key, __: Object | None, settings: Object | None) -> None:
        if settings and (text := (settings.get("data") or {}).get("spec.json")):
            self.spec = ClusterSpec.from_json(json.loads(text))
            self.network_changed.fire()
