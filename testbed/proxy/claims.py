"""What several Services have a claim to: two that share an external address, or an endpoint.

The Service whose name comes first wins, whatever the order of events, so a change leads where a full load would.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from testbed.api.objects import Key

F = TypeVar("F", bound=Hashable)
V = TypeVar("V")


class Claims(Generic[F, V]):
    """Who claims which fact, and the value that each would give it."""

    def __init__(self) -> None:
        self._by_fact: dict[F, dict[Key, V]] = {}

    def add(self, service: Key, claims: Mapping[F, V]) -> None:
        """The Service claims these."""
        for fact, value in claims.items():
            self._by_fact.setdefault(fact, {})[service] = value

    def remove(self, service: Key, claims: Iterable[F]) -> None:
        """The Service claims these no longer."""
        for fact in claims:
            claimants = self._by_fact.get(fact, {})
            claimants.pop(service, None)
            if not claimants:
                self._by_fact.pop(fact, None)

    def __contains__(self, fact: F) -> bool:
        """Whether anybody claims it."""
        return fact in self._by_fact

    def settled(self, which: Iterable[F] | None = None) -> dict[F, V]:
        """The values of these facts, of all by default; those that nobody claims are not among them."""
        wanted = self._by_fact if which is None else which
        return {each: claimants[min(claimants)] for each in wanted if (claimants := self._by_fact.get(each))}
