"""The virtual ports of every node, kept up to date from two informers.

Only the Services that changed are looked at again. Those that every node serves alike, nearly all, are worked out once
for all nodes of this process; the others once for each node that asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from testbed.api.objects import Key, Object
from testbed.client.informer import Informer
from testbed.proxy.servicemap import Location, Offer, health_check, offers_of, service_of
from testbed.proxy.virtualport import HealthCheck, Ports, VirtualPort

_SPARE = 1000
"""So many Services that are gone are remembered, and as many more as there are."""


@dataclass(frozen=True)
class Snapshot:
    """What one node is to serve. What is handed out never changes afterwards."""

    ports: Ports
    health_checks: Mapping[Key, HealthCheck]
    version: int
    """The resourceVersion of Services and EndpointSlices that this accounts for."""
    sequence: int
    """Of changes: to be given back with the next question."""
    changed: frozenset[Key] | None
    """The Services that may differ from what the node was given at the sequence that it named; None: any."""


@dataclass
class _OfNode:
    """What a node serves in its own way."""

    zone: str
    ports: dict[Key, tuple[VirtualPort, ...]] = field(default_factory=dict)
    health_checks: dict[Key, HealthCheck] = field(default_factory=dict)
    sequence: int = 0


class Services:
    """Follows Services and EndpointSlices; must be made before the informers run."""

    def __init__(self, services: Informer, slices: Informer) -> None:
        self._services, self._slices = services, slices
        self._by_service = slices.index(_owners)
        self._common: dict[Key, tuple[VirtualPort, ...]] = {}
        self._placed: dict[Key, tuple[Offer, ...]] = {}
        self._nodes: dict[str, _OfNode] = {}
        self._dirty: set[Key] = set()
        self._changes = History()
        self._ports: dict[Key, tuple[VirtualPort, ...]] = {}
        self._ports_at = 0
        services.on_change(self._dirty.add)
        slices.observe(self._slice_changed)

    @property
    def is_synced(self) -> bool:
        """Whether both kinds have been listed. Before that, a snapshot would take endpoints away."""
        return self._services.synced.is_set() and self._slices.synced.is_set()

    def snapshot(self, here: Location, since: int = 0) -> Snapshot:
        """Everything that the node there is to serve now, and what of it changed `since` that sequence."""
        self._update()
        node = self._nodes.get(here.node)
        if node is None or node.zone != here.zone:
            self._nodes[here.node] = node = _OfNode(here.zone)
            since = 0
        self._place(node, here)
        return Snapshot(
            ports={**self._shared(), **node.ports} if node.ports else self._shared(),
            health_checks=dict(node.health_checks),
            version=max(self._services.resource_version, self._slices.resource_version),
            sequence=self._changes.last,
            changed=self._changes.since(since),
        )

    def forget(self, node: str) -> None:
        """Nobody asks for this node any more."""
        self._nodes.pop(node, None)

    def _slice_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        for slice_ in (old, new):
            self._dirty.update(_owners(slice_) if slice_ else ())

    def _update(self) -> None:
        """What all nodes share, for every Service that has changed."""
        while self._dirty:
            which = self._dirty.pop()
            service = self._services.items.get(which)
            offers = offers_of(service, self._by_service[which]) if service else ()
            if all(offer.is_same_everywhere for offer in offers):
                before = self._common.get(which, ())
                after = tuple(offer.at(Location(""), _same(before, offer)) for offer in offers)
                was_placed = self._placed.pop(which, None) is not None
                if after == before and not was_placed:
                    continue
                _put(self._common, which, after)
            else:
                self._common.pop(which, None)
                self._placed[which] = offers
            self._changes.note(which, is_gone=not offers)

    def _place(self, node: _OfNode, here: Location) -> None:
        """What the node serves in its own way, for every Service that changed since it last asked."""
        changed = self._changes.since(node.sequence)
        node.sequence = self._changes.last
        for which in self._placed.keys() | node.ports.keys() if changed is None else changed:
            offers = self._placed.get(which, ())
            before = node.ports.get(which, ())
            after = tuple(offer.at(here, _same(before, offer)) for offer in offers)
            _put(node.ports, which, before if after == before else after)
            check = health_check(self._services.items[which], offers, here) if offers else None
            node.health_checks.pop(which, None)
            if check:
                node.health_checks[which] = check

    def _shared(self) -> Ports:
        if self._ports_at != self._changes.last:
            self._ports, self._ports_at = dict(self._common), self._changes.last
        return self._ports


class History:
    """Which Services changed, in the order of their last change."""

    def __init__(self) -> None:
        self.last = 0
        self._at: dict[Key, int] = {}
        self._gone: dict[Key, None] = {}
        self._floor = 0

    def __len__(self) -> int:
        return len(self._at)

    def note(self, which: Key, *, is_gone: bool) -> None:
        """It changed just now."""
        self.last += 1
        self._at.pop(which, None)
        self._at[which] = self.last
        self._gone.pop(which, None)
        if is_gone:
            self._gone[which] = None
        while len(self._gone) > _SPARE + len(self._at) // 2:
            oldest = next(iter(self._gone))
            del self._gone[oldest]
            self._floor = max(self._floor, self._at.pop(oldest))

    def since(self, sequence: int) -> frozenset[Key] | None:
        """Those that changed after that; None where nobody remembers."""
        if sequence < max(self._floor, 1):
            return None
        return frozenset(self._newest(sequence))

    def _newest(self, sequence: int) -> Iterator[Key]:
        for which in reversed(self._at):
            if self._at[which] <= sequence:
                return
            yield which


def _owners(slice_: Object) -> tuple[Key, ...]:
    owner = service_of(slice_)
    return (owner,) if owner else ()


def _same(before: tuple[VirtualPort, ...], offer: Offer) -> VirtualPort | None:
    """What stood for the offer's port before, whose slots its endpoints keep."""
    wanted = (offer.port.cluster_ip, offer.port.protocol, offer.port.port)
    return next((port for port in before if (port.cluster_ip, port.protocol, port.port) == wanted), None)


def _put(ports: dict[Key, tuple[VirtualPort, ...]], which: Key, found: tuple[VirtualPort, ...]) -> None:
    if found:
        ports[which] = found
    else:
        ports.pop(which, None)
