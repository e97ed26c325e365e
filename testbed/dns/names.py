"""All records that should be served, kept up to date from informers of Services, EndpointSlices and Pods.

Only what changed is looked at again. Pods on one node's network share a name, and sources may agree by chance: a record
is there for as long as any of them says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from testbed.api.objects import Key, Object, labels, namespace
from testbed.api.wellknown import SERVICE_NAME_LABEL
from testbed.client.informer import Informer
from testbed.dns.records import Record, pod_records, service_records, zone_records


@dataclass(frozen=True)
class Sources:
    """The informers of all that has names; they must not run before `Names` is made."""

    services: Informer
    slices: Informer
    pods: Informer

    @property
    def informers(self) -> tuple[Informer, ...]:
        """All of them."""
        return self.services, self.slices, self.pods


class Names:
    """The records of a domain, whose own server has an address. `changed` is called when `take` has news."""

    def __init__(self, sources: Sources, domain: str, server: str, changed: Callable[[], None]) -> None:
        self._sources, self._domain, self._changed = sources, domain, changed
        self._slices_of = sources.slices.index(_owners)
        self._made: dict[tuple[str, Key], frozenset[Record]] = {}
        self._counts = Counter(zone_records(domain, server))
        self._dirty: set[tuple[str, Key]] = set()
        sources.services.on_change(lambda key: self._note("Service", key))
        sources.pods.on_change(lambda key: self._note("Pod", key))
        sources.slices.observe(self._slice_changed)

    @property
    def records(self) -> Collection[Record]:
        """Everything that should be served, as of the last `take`."""
        return self._counts.keys()

    def take(self) -> set[Record]:
        """Every record that may have come or gone since the last call: those in `records` have come."""
        touched: set[Record] = set()
        while self._dirty:
            source = self._dirty.pop()
            before, after = self._made.pop(source, frozenset()), self._records_of(*source)
            if after:
                self._made[source] = after
            touched |= self._count(before - after, -1) | self._count(after - before, 1)
        return touched

    def _records_of(self, kind: str, which: Key) -> frozenset[Record]:
        if kind == "Pod":
            pod = self._sources.pods.items.get(which)
            return pod_records(pod, self._domain) if pod else frozenset()
        service = self._sources.services.items.get(which)
        return service_records(service, self._slices_of[which], self._domain) if service else frozenset()

    def _count(self, records: Collection[Record], step: int) -> set[Record]:
        """The records that this made come or go."""
        turned = set()
        for record in records:
            self._counts[record] += step
            if self._counts[record] == 0:
                del self._counts[record]
            if self._counts[record] == max(step, 0):
                turned.add(record)
        return turned

    def _slice_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        for slice_ in filter(None, (old, new)):
            for owner in _owners(slice_):
                self._note("Service", owner)

    def _note(self, kind: str, which: Key) -> None:
        self._dirty.add((kind, which))
        self._changed()


def _owners(slice_: Object) -> tuple[Key, ...]:
    service = labels(slice_).get(SERVICE_NAME_LABEL)
    return (Key(namespace(slice_), service),) if service else ()
