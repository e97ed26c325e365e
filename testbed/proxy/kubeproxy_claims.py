"""Elements that several Services have a claim to: two that share an endpoint, or an external address and port.

The Service whose name comes first wins, whatever the order of events, so a change leads where a full load would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from testbed.api.objects import Key
from testbed.proxy.kubeproxy_rules import Element


class Claims:
    """Who claims which element, and the value that each would give it."""

    def __init__(self) -> None:
        self._by_element: dict[Element, dict[Key, str]] = {}

    def add(self, service: Key, claims: Mapping[Element, str]) -> None:
        """The Service claims these."""
        for element, value in claims.items():
            self._by_element.setdefault(element, {})[service] = value

    def remove(self, service: Key, claims: Iterable[Element]) -> None:
        """The Service claims these no longer."""
        for element in claims:
            claimants = self._by_element.get(element, {})
            claimants.pop(service, None)
            if not claimants:
                self._by_element.pop(element, None)

    def settled(self, which: Iterable[Element] | None = None) -> dict[Element, str]:
        """The values of these elements, of all by default; those that nobody claims are not among them."""
        wanted = self._by_element if which is None else which
        return {each: claimants[min(claimants)] for each in wanted if (claimants := self._by_element.get(each))}
