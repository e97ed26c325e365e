"""The rules of mode `ipvs`: what IPVS itself cannot decide, in one table of nftables. Pure.

    packet ─ dispatch: refused, dropped, or let through ─▶ IPVS chooses a real server ─ sources: masqueraded, or not ─▶

Written as `nft list table` prints it, so that it can be compared. All chains are nat: they see the first packet of a
connection, and no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from testbed.proxy.virtualport import Here

TABLE = "testbed-ipvs"
NEXT_TABLE = "testbed-ipvs-next"
"""Where a ruleset too large for one transaction is put together before it takes over."""
TABLES = (TABLE, NEXT_TABLE)

SERVICE_IPS, PORTS, REFUSALS, SOURCES = "service-ips", "ports", "refusals", "sources"
GUARDED, ALLOWED = "guarded", "allowed-sources"

UNIT = 250
"""Elements to a statement."""


class Name(NamedTuple):
    """An element: of which map or set, and its key."""

    where: str
    key: str


_KEY = "ip daddr . meta l4proto . th dport"
_KEY_TYPE = "ipv4_addr . inet_proto . inet_service"
_ORIGINAL = "ct original ip daddr . meta l4proto . ct original proto-dst"
_MASQUERADE = "masquerade fully-random"
_SEPARATOR = "\n\t\t"

SETS = {
    SERVICE_IPS: "set service-ips { type ipv4_addr; }",
    PORTS: f"set ports {{ type {_KEY_TYPE}; }}",
    GUARDED: f"set guarded {{ type {_KEY_TYPE}; }}",
    ALLOWED: f"set allowed-sources {{ type ipv4_addr . {_KEY_TYPE}; flags interval; }}",
    REFUSALS: f"map refusals {{ type {_KEY_TYPE} : verdict; }}",
    SOURCES: f"map sources {{ type {_KEY_TYPE} : verdict; }}",
}
"""Name to declaration, of the maps and sets whose elements stand for Services."""

HOOKS = {
    "nat-prerouting": ("type nat hook prerouting priority dstnat; policy accept;", "jump dispatch"),
    "nat-output": ("type nat hook output priority -100; policy accept;", "jump dispatch"),
    "nat-postrouting": (
        "type nat hook postrouting priority srcnat; policy accept;",
        f"ip saddr . ip daddr @hairpins {_MASQUERADE}",
        *(f"meta l4proto {protocol} {_ORIGINAL} vmap @sources" for protocol in ("tcp", "udp", "sctp")),
    ),
}
"""Base chains: declaration and rules."""
_DRAINING = """\
table ip {table} {{
  set service-ips {{ type ipv4_addr; elements = {{ {addresses} }}; }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat
    ip saddr @service-ips {masquerade}
  }}
}}
"""


def skeleton(table: str, here: Here) -> str:
    """The table with its empty maps and sets, and the chains that no packet enters yet."""
    hairpins = ", ".join(f"{address} . {address}" for address in here.pod_cidr.hosts())
    sets = [
        *SETS.values(),
        f"set hairpins {{ type ipv4_addr . ipv4_addr; elements = {{ {hairpins} }}; }}",
    ]
    declared = "".join(f"\t{each}\n" for each in sets)
    return f"table ip {table} {{\n{declared}{_declared(chains(here))}}}\n"


def chains(here: Here) -> dict[str, tuple[str, ...]]:
    """Name to rules, of those that the base chains lead to."""
    return {
        "refuse": ("reject with tcp reset", "reject"),
        "masq": (_MASQUERADE,),
        "masq-own": (f"fib saddr type local {_MASQUERADE}",),
        "masq-foreign": (f"ip saddr != {here.cluster_cidr} {_MASQUERADE}",),
        "dispatch": (
            f"{_KEY} vmap @refusals",
            f"{_KEY} @guarded ip saddr . {_KEY} != @allowed-sources drop",
            # The reset that refuses a process of the node itself goes to the same address that it came for.
            f"ct state new meta l4proto {{ tcp, udp, sctp }} ip daddr @service-ips {_KEY} != @ports goto refuse",
        ),
    }


def hooks(table: str) -> str:
    """The chains that bring packets in: with these the table takes effect."""
    return f"table ip {table} {{\n{_declared(HOOKS)}}}\n"


def draining(addresses: Iterable[str]) -> str:
    """All that is left while connections drain and another mode serves: these addresses are still bound to the node.

    So a process of the node that asks one of them comes from that very address, and nobody could answer it.
    """
    delete_all = "".join(delete(table) for table in TABLES)
    listed = ", ".join(addresses)
    return delete_all + (_DRAINING.format(table=TABLE, addresses=listed, masquerade=_MASQUERADE) if listed else "")


def delete(table: str) -> str:
    """No table of that name, whether or not there was one."""
    return f"add table ip {table}\ndelete table ip {table}\n"


def change(table: str, before: Mapping[Name, str], after: Mapping[Name, str]) -> Iterator[str]:
    """Statements that turn one set of elements into the other. An element whose value changes is replaced."""
    gone = [name for name, value in before.items() if after.get(name) != value]
    added = [name for name, value in after.items() if before.get(name) != value]
    yield from _statements("delete", table, dict.fromkeys(gone, ""))
    yield from _statements("add", table, {name: after[name] for name in added})


def _statements(verb: str, table: str, wanted: Mapping[Name, str]) -> Iterator[str]:
    for where in SETS:
        listed = [
            f"{name.key} : {value}" if value else name.key for name, value in wanted.items() if name.where == where
        ]
        for start in range(0, len(listed), UNIT):
            yield f"{verb} element ip {table} {where} {{ {', '.join(listed[start : start + UNIT])} }}\n"


def _declared(wanted: Mapping[str, tuple[str, ...]]) -> str:
    return "".join(f"\tchain {name} {{\n\t\t{_SEPARATOR.join(rules)}\n\t}}\n" for name, rules in wanted.items())
