"""What `nft list` prints of a table, read back. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_OPENING = re.compile(r"(table|set|map|chain) (.+) \{$")
_ELEMENTS = "elements = { "


@dataclass
class Listing:
    """A table. What is said of an object besides its elements counts as a rule of it."""

    rules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By `chain NAME`, `set NAME` or `map NAME`."""
    elements: dict[str, dict[str, str]] = field(default_factory=dict)
    """By set or map: the value of each key, empty in a set."""


def parse(text: str) -> Listing:
    """Read what nft has listed, or a script that is written like that; a later part adds to an earlier one."""
    found = Listing()
    lines = (line.strip() for line in text.splitlines())
    for line in lines:
        opening = _OPENING.match(line)
        if opening and opening[1] != "table":
            _read(found, f"{opening[1]} {opening[2]}", lines)
    return found


def differences(have: Listing, wanted: Listing) -> list[str]:
    """`- …` what is there and should not be, `+ …` what should be there and is not."""
    there, here = _lines(have), _lines(wanted)
    return [f"- {line}" for line in sorted(there - here)] + [f"+ {line}" for line in sorted(here - there)]


def _read(found: Listing, name: str, lines: Iterator[str]) -> None:
    rules: list[str] = []
    for line in lines:
        if line == "}":
            break
        if line.startswith(_ELEMENTS):
            found.elements.setdefault(name.partition(" ")[2], {}).update(_elements(line, lines))
        elif line:
            rules.append(line)
    found.rules[name] = tuple(rules)


def _elements(first: str, lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """nft breaks the lines of a list wherever it likes, but always behind a comma."""
    line = first.removeprefix(_ELEMENTS)
    while True:
        for element in line.removesuffix("}").strip().strip(",").split(", "):
            key, _, value = element.partition(" : ")
            yield key, value
        if line.endswith("}"):
            return
        line = next(lines)


def _lines(listing: Listing) -> set[str]:
    rules = {f"{name} {{ {'; '.join(line.rstrip(';') for line in each)} }}" for name, each in listing.rules.items()}
    return rules | {
        f"element {where} {{ {key}{f' : {value}' if value else ''} }}"
        for where, elements in listing.elements.items()
        for key, value in elements.items()
    }
