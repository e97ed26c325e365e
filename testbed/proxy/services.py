"""The virtual ports of the whole cluster, kept up to date from two informers.

Only the Services that changed are looked at again; what is handed out is always the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from testbed.api.objects import Key, Object
from testbed.client.informer import Informer
from testbed.proxy.servicemap import VirtualPort, arrange, service_of, service_ports

Ports = Mapping[Key, tuple[VirtualPort, ...]]
"""By Service. An entry that has not changed is the same object, so comparing two of these by identity is enough."""


@dataclass(frozen=True)
class Snapshot:
    """What is to be served, and the resourceVersion that it accounts for."""

    ports: Ports
    version: int


class Services:
    """Follows Services and EndpointSlices; must be made before the informers run."""

    def __init__(self, services: Informer, slices: Informer) -> None:
        self._services, self._slices = services, slices
        self._by_service = slices.index(_owners)
        self._ports: dict[Key, tuple[VirtualPort, ...]] = {}
        self._dirty: set[Key] = set()
        self._last = Snapshot({}, 0)
        services.on_change(self._dirty.add)
        slices.observe(self._slice_changed)

    @property
    def is_synced(self) -> bool:
        """Whether both kinds have been listed. Before that, a snapshot would take endpoints away."""
        return self._services.synced.is_set() and self._slices.synced.is_set()

    def snapshot(self) -> Snapshot:
        """Everything that is to be served now. What is handed out never changes afterwards."""
        version = max(self._services.resource_version, self._slices.resource_version)
        if self._dirty:
            while self._dirty:
                self._update(self._dirty.pop())
            self._last = Snapshot(dict(self._ports), version)
        elif version != self._last.version:
            self._last = replace(self._last, version=version)
        return self._last

    def _slice_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        for slice_ in (old, new):
            self._dirty.update(_owners(slice_) if slice_ else ())

    def _update(self, which: Key) -> None:
        service = self._services.items.get(which)
        before = self._ports.get(which, ())
        found = service_ports(service, self._by_service[which]) if service else ()
        after = tuple(_arranged(before, port) for port in found)
        if after != before:
            self._ports[which] = after
        if not after:
            self._ports.pop(which, None)


def _owners(slice_: Object) -> tuple[Key, ...]:
    owner = service_of(slice_)
    return (owner,) if owner else ()


def _arranged(before: tuple[VirtualPort, ...], port: VirtualPort) -> VirtualPort:
    """The port with its endpoints in the slots that they had."""
    identity = (port.address, port.protocol, port.port)
    for old in before:
        if (old.address, old.protocol, old.port) == identity:
            return replace(port, endpoints=arrange(old.endpoints, port.endpoints))
    return port
