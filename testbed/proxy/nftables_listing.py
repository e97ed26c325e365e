"""What nft prints of the tables of mode `nftables`, read back. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_ELEMENTS = re.compile(r"elements = \{ (.*?) \}", re.DOTALL)
_SEPARATOR = re.compile(r",\s+")
_CHAIN = re.compile(r"^\tchain (\S+) \{\n(.*?)^\t\}", re.DOTALL | re.MULTILINE)
_TABLE = re.compile(r"^table ip (\S+) \{\n(.*?)^\}", re.DOTALL | re.MULTILINE)
_CLIENT = re.compile(r"(\S+) \. (\S+) timeout (\S+) expires (\S+) : (\S+)")


class Client(NamedTuple):
    """An affinity entry: who keeps which endpoint of which Service port, and for how long, all as nft prints it."""

    address: str
    service: str
    timeout: str
    expires: str
    endpoint: str

    def __str__(self) -> str:
        return f"{self.address} . {self.service} timeout {self.timeout} expires {self.expires} : {self.endpoint}"


def elements(listed: str) -> dict[str, str]:
    """Key to value, of one map or set; the value is empty for an element of a set."""
    found: dict[str, str] = {}
    for each in _elements(listed):
        key, _, value = each.partition(" : ")
        found[key] = value
    return found


def clients(listed: str) -> list[Client]:
    """The entries of the map of clients."""
    return [Client(*parsed.groups()) for each in _elements(listed) if (parsed := _CLIENT.fullmatch(each))]


def chains(listed: str) -> dict[str, tuple[str, ...]]:
    """Name to rules, of every chain of a table."""
    return {name: tuple(line.strip() for line in body.splitlines()) for name, body in _CHAIN.findall(listed)}


def tables_with_chain(listed: str, chain: str) -> set[str]:
    """The tables, of `list chains`, that have a chain of that name."""
    return {name for name, body in _TABLE.findall(listed) if f"\tchain {chain} {{\n" in body}


def _elements(listed: str) -> Iterator[str]:
    if found := _ELEMENTS.search(listed):
        yield from _SEPARATOR.split(found[1])
