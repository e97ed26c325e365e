"""What a packet would meet in the rules that a script makes: enough of nftables to follow our own.

It reads the elements out of the statements, in the order in which they are loaded, and knows what our chains do with
them; that the kernel agrees is shown in tests/kernel/test_services.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_STATEMENT = re.compile(r"(add|delete) element ip (\S+) (\S+) \{ (.*) \}")
_HAIRPINS = re.compile(r"set hairpins \{.*elements = \{ ([^}]*) \}")
_CHAIN = re.compile(r"add chain ip \S+ (lb-\d+)")


@dataclass
class Ruleset:
    """The maps, by name."""

    maps: dict[str, dict[str, str]] = field(default_factory=dict)
    hairpins: frozenset[str] = frozenset()
    chains: frozenset[str] = frozenset()

    def load(self, script: str) -> None:
        """As the kernel would: an element may be added once, and only one that is there can be deleted."""
        for hairpins in _HAIRPINS.findall(script):
            self.hairpins |= set(hairpins.split(", "))
        self.chains |= set(_CHAIN.findall(script))
        for verb, _, name, listed in _STATEMENT.findall(script):
            elements = self.maps.setdefault(name, {})
            for each in listed.split(", "):
                key, _, value = each.partition(" : ")
                if verb == "delete":
                    del elements[key]
                else:
                    assert elements.get(key, value) == value, f"{name}: {key} has another value"
                    elements[key] = value

    def connect(self, source: str, address: str, protocol: str, port: int) -> Outcome:
        """Where new connections go: every endpoint that may be chosen, and those that are masqueraded on the way."""
        key = f"{address} . {protocol} . {port}"
        verdict = self.maps.get("services", {}).get(key)
        if verdict is None:
            return Outcome(refused=address in self.maps.get("cluster-ips", {}))
        chain = verdict.removeprefix("goto ")
        assert chain in self.chains
        slots = range(int(chain.removeprefix("lb-")))
        reached = [self.maps["endpoints"][f"{key} . {slot}"] for slot in slots]
        hairpins = [each for each in reached if f"{source} . {each.split(' ')[0]}" in self.hairpins]
        return Outcome(_printed(reached), masqueraded=_printed(hairpins))

    def is_consistent(self) -> bool:
        """No Service points at an endpoint that is not there."""
        endpoints = self.maps.get("endpoints", {})
        return all(
            f"{key} . {slot}" in endpoints
            for key, verdict in self.maps.get("services", {}).items()
            for slot in range(int(verdict.rpartition("-")[2]))
        )


@dataclass(frozen=True)
class Outcome:
    """What becomes of a new connection; all empty: it goes where it was addressed to."""

    reached: tuple[str, ...] = ()
    masqueraded: tuple[str, ...] = ()
    refused: bool = False


def _printed(endpoints: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(each.replace(" . ", ":") for each in endpoints))
