"""The maps that statements of mode `nftables` leave behind, and whether all that they point at is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from testbed.proxy.nftables_rules import LOCAL_SLOTS

_STATEMENT = re.compile(r"(add|delete) element ip (\S+) (\S+) \{ (.*) \}")


@dataclass
class Maps:
    """Name of a map or set to its keys and values."""

    elements: dict[str, dict[str, str]] = field(default_factory=dict)

    def load(self, script: str) -> None:
        """As the kernel would: an element may be added once, and only one that is there can be deleted."""
        for verb, _, name, listed in _STATEMENT.findall(script):
            elements = self.elements.setdefault(name, {})
            for each in listed.split(", "):
                key, _, value = each.partition(" : ")
                if verb == "delete":
                    del elements[key]
                else:
                    assert elements.get(key, value) == value, f"{name}: {key} has another value"
                    elements[key] = value

    def dangling(self) -> list[str]:
        """Services that a packet could not follow to an endpoint."""
        return [
            f"{key}: {missing}"
            for key, verdict in self._map("services").items()
            for missing in self._missing(key, verdict)
        ]

    def reached(self, key: str, *, outside: bool = False) -> set[str]:
        """The endpoints between which a new connection to this key is shared out."""
        verdict = self._map("services").get(key, "goto refuse")
        if verdict == "goto guard":
            verdict = self._map("guarded")[key]
        if verdict == "goto local":
            verdict = self._map("outside" if outside else "inside")[key]
        if verdict.startswith("goto sticky"):
            picker = self._map("outside-pickers" if outside else "pickers")[key]
            marks = (self._map("slots")[slot] for slot in _slots(key, picker))
            return {self._map("sticky-endpoints")[f"{key} . {mark}"] for mark in marks}
        return {self._map("endpoints")[slot] for slot in _slots(key, verdict)}

    def _missing(self, key: str, verdict: str) -> Iterator[str]:
        name = verdict.removeprefix("goto ")
        if name == "guard":
            yield from self._missing(key, self._map("guarded")[key])
        elif name == "local":
            yield from self._missing(key, self._map("inside")[key])
            yield from self._missing(key, self._map("outside")[key])
        elif name.startswith("sticky"):
            picker = self._map("outside-pickers" if name == "sticky-outside" else "pickers")[key]
            slots = self._map("slots")
            yield from (slot for slot in _slots(key, picker) if slot not in slots)
            marks = {slots[slot] for slot in _slots(key, picker) if slot in slots}
            yield from (mark for mark in marks if f"{key} . {mark}" not in self._map("sticky-endpoints"))
            yield from (each for each in ("sticky-services", "timeouts") if key not in self._map(each))
        else:
            yield from (slot for slot in _slots(key, verdict) if slot not in self._map("endpoints"))

    def _map(self, name: str) -> dict[str, str]:
        return self.elements.get(name, {})


def _slots(key: str, verdict: str) -> list[str]:
    chain, _, count = verdict.rpartition("-")
    first = LOCAL_SLOTS if chain.endswith("local") else 0
    return [f"{key} . {first + slot}" for slot in range(int(count))] if count.isdecimal() else []
