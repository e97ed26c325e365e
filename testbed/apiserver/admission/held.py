"""Which object holds which value, as the store has it: whoever wants a value that is free need not look at all."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from testbed.api.kinds import Kind
from testbed.api.objects import Key, Object, key
from testbed.apiserver.records import Record
from testbed.apiserver.store import Store

V = TypeVar("V", bound=Hashable)


class Held(Generic[V]):
    """Values of the objects of a kind, each held by at most one.

    It follows the store through writes that are staged and writes that are taken back, so there is nothing to claim
    and nothing to release: a value is held exactly while its object, as the store has it, has it.
    """

    def __init__(self, store: Store, kind: Kind, values: Callable[[Object], Iterable[V]]) -> None:
        self._values = values
        self._holders: dict[V, Key] = {}
        for record in store.list(kind):
            self._follow(None, record)
        store.follow(kind, self._follow)

    def is_taken(self, value: V, by_other_than: Key) -> bool:
        """Whether some other object holds the value now."""
        return self._holders.get(value, by_other_than) != by_other_than

    def _follow(self, old: Record | None, new: Record | None) -> None:
        if old is not None:
            holder = key(old.document)
            for value in self._values(old.document):
                if self._holders.get(value) == holder:
                    del self._holders[value]
        if new is not None:
            holder = key(new.document)
            for value in self._values(new.document):
                self._holders[value] = holder


def values_to_try(count: int, static: int, start: int) -> Iterable[int]:
    """The numbers 0 … count - 1 in the order in which they are given out: `start` says where it begins.

    The first `static` of them are for people to choose by hand, and come last (KEP-3070, KEP-3668).
    """
    dynamic = count - static
    for offset in range(dynamic):
        yield static + (start + offset) % dynamic
    yield from range(static)
