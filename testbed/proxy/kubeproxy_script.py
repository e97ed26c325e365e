"""Statements that bring objects into kube-proxy's nftables table, and out of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from testbed.proxy.kubeproxy_rules import Element, Objects

PIECE, SMALL_PIECE = 60_000, 20_000
"""Characters to a transaction: 6 MB of memory in libnftables; and what fits well into the socket buffer that the kernel
allows a plain user by default (net.core.wmem_max, 208 KiB, doubled)."""

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def delete(table: str) -> str:
    """No table of that name, whether or not there was one."""
    return f"add table ip {table}\ndelete table ip {table}\n"


def assemble(table: str, wanted: Objects, size: int = PIECE) -> Iterator[str]:
    """Pieces of about that size which fill the table, after its skeleton, a transaction each, in this order."""
    piece: dict[str, tuple[str, ...]] = {}
    filled = 0
    for name, rules in wanted.chains.items():
        filled += len(name) + sum(map(len, rules))
        if piece and filled > size:
            yield _filled(table, wanted, piece)
            piece, filled = {}, 0
        piece[name] = rules
    if piece:
        yield _filled(table, wanted, piece)
    yield from elements_added(table, wanted.elements, size)


def change(table: str, before: Objects, after: Objects) -> str:
    """What turns one into the other, in one transaction; empty where they are the same.

    Chains that are gone are left behind empty: see `chains_deleted`. A set cannot be given another timeout: it is made
    anew, and so are the rules that use it.
    """
    new_sets = {name: timeout for name, timeout in after.sets.items() if before.sets.get(name) != timeout}
    renewed = [f"@{name} " for name in new_sets if name in before.sets]
    rewritten = {
        name: each
        for name, each in after.chains.items()
        if before.chains.get(name) != each or any(use in rule for rule in each for use in renewed)
    }
    flushed = [*chains_gone(before, after), *(name for name in rewritten if name in before.chains)]
    lost = [each for each, value in before.elements.items() if after.elements.get(each) != value]
    won = {each: value for each, value in after.elements.items() if before.elements.get(each) != value}
    return "".join(
        [
            *(f"flush chain ip {table} {name}\n" for name in flushed),
            *(f"delete set ip {table} {name}\n" for name in before.sets if after.sets.get(name) != before.sets[name]),
            _block(table, new_sets, rewritten),
            *(f"delete element ip {table} {where} {{ {', '.join(keys)} }}\n" for where, keys in _grouped(lost)),
            *elements_added(table, won),
        ]
    )


def chains_gone(before: Objects, after: Objects) -> list[str]:
    """Those that nothing leads to any more."""
    return [name for name in before.chains if name not in after.chains]


def chains_deleted(table: str, chains: Iterable[str]) -> str:
    """Statements that delete these.

    Before Linux 6.2 the kernel answers EBUSY for a while after the map elements that led to a chain were deleted.
    """
    return "".join(f"delete chain ip {table} {name}\n" for name in chains)


def elements_added(table: str, elements: Mapping[Element, str], size: int = PIECE) -> Iterator[str]:
    """Pieces of about that size which add these."""
    for where, keys in _grouped(elements):
        values = [f"{key} : {value}" if (value := elements[Element(where, key)]) else key for key in keys]
        step = size // max(map(len, values))
        for start in range(0, len(values), step):
            yield f"add element ip {table} {where} {{ {', '.join(values[start : start + step])} }}\n"


def affinity_set(timeout_s: int) -> tuple[str, ...]:
    """What is said of a set of clients that stick to an endpoint."""
    return ("type ipv4_addr", "size 65535", "flags dynamic,timeout", f"timeout {_duration(timeout_s)}")


def _filled(table: str, wanted: Objects, chains: Mapping[str, tuple[str, ...]]) -> str:
    sets = {name: wanted.sets[name] for name in map(_affinity, chains) if name in wanted.sets}
    return _block(table, sets, chains)


def _affinity(chain: str) -> str:
    """The set that belongs to the chain of an endpoint."""
    return f"affinity-{chain.partition('-')[2]}"


def _block(table: str, sets: Mapping[str, int], chains: Mapping[str, Iterable[str]]) -> str:
    if not sets and not chains:
        return ""
    bodies = {f"set {name}": affinity_set(timeout_s) for name, timeout_s in sets.items()}
    bodies |= {f"chain {name}": tuple(rules) for name, rules in chains.items()}
    shown = [f"\t{name} {{\n\t\t" + "\n\t\t".join(body) + "\n\t}\n" for name, body in bodies.items()]
    return f"table ip {table} {{\n" + "".join(shown) + "}\n"


def _grouped(elements: Iterable[Element]) -> Iterator[tuple[str, list[str]]]:
    keys: dict[str, list[str]] = {}
    for each in elements:
        keys.setdefault(each.where, []).append(each.key)
    yield from keys.items()


def _duration(seconds: int) -> str:
    """As nft prints it: 90 is 1m30s."""
    shown = ""
    for unit, letter in _UNITS:
        count, seconds = divmod(seconds, unit)
        shown += f"{count}{letter}" if count else ""
    return shown
