"""The rules of mode `nftables`: maps, sets and chains, which no Service adds to. Pure.

Everything is written as `nft list table` prints it, so that what the kernel holds can be compared with it line by line.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from testbed.proxy.virtualport import Here

TABLE = "testbed-proxy"
OTHER_TABLE = "testbed-proxy-2"
"""Each of the two is put together beside the other, which it then replaces in one transaction."""
TABLES = (TABLE, OTHER_TABLE)

LOCAL_SLOTS = 32768
"""The first slot of the endpoints of traffic policy Local; an address has those of Cluster below it."""

FIRST_SLOTS = ("lb-1", "local-1", "pick-1", "pick-local-1")
"""Chains that take the first slot, and are always there."""

_KEY = "ip daddr . meta l4proto . th dport"
_PLAIN_KEY = "ipv4_addr . inet_proto . inet_service"
# nft 1.0.6 refuses a rule that uses a map of `: ip daddr . th dport` which it has read back from the kernel
# ("conflicting protocols specified: ip vs. th"). The type of a TCP port is the same, and good for every protocol, but
# the first rule of a script that uses such a map is made to match TCP alone: let that be one that no packet meets.
_SLOT = f"typeof {_KEY} . numgen random mod 65536"
_NUMGEN = "numgen random mod"

MAPS = {
    "services": f"type {_PLAIN_KEY} : verdict",
    "inside": f"type {_PLAIN_KEY} : verdict",
    "outside": f"type {_PLAIN_KEY} : verdict",
    "guarded": f"type {_PLAIN_KEY} : verdict",
    "public": f"type {_PLAIN_KEY} : verdict",
    "endpoints": f"{_SLOT} : ip daddr . tcp dport",
    "sticky-services": f"type {_PLAIN_KEY} : mark",
    "sticky-endpoints": f"type {_PLAIN_KEY} . mark : ipv4_addr . inet_service",
    "slots": f"{_SLOT} : meta mark",
    "pickers": f"type {_PLAIN_KEY} : verdict",
    "outside-pickers": f"type {_PLAIN_KEY} : verdict",
    "timeouts": f"type {_PLAIN_KEY} : verdict",
}
"""Name to declaration, of those whose elements stand for Services."""
SETS = {
    "cluster-ips": "type ipv4_addr",
    "allowed-sources": f"type ipv4_addr . {_PLAIN_KEY}\n\t\tflags interval",
}
"""The same of sets."""
CLIENTS = "clients"
"""The map that packets write: client and Service to the endpoint it keeps, until it times out."""
_CLIENTS = "type ipv4_addr . mark : mark\n\t\tsize 1000000\n\t\tflags dynamic,timeout"
_HAIRPINS = "type ipv4_addr . ipv4_addr"

# nft maps to a port only behind a match on the transport protocol; a set of protocols would be one more object.
_DNAT = "meta l4proto != icmp dnat ip to"
_FIRST_USE = (f"dnat ip to ip daddr . meta l4proto . tcp dport . {_NUMGEN} 1 map @endpoints",)
_ORIGINAL = "ct original ip daddr . meta l4proto . ct original proto-dst"
_BY_KEY = f"{_KEY} vmap"
_MASQUERADE = "masquerade fully-random"


def delete(table: str) -> str:
    """No table of that name, whether or not there was one."""
    return f"add table ip {table}\ndelete table ip {table}\n"


def skeleton(table: str, here: Here) -> str:
    """The table with its empty maps and sets, and the chains that no packet enters yet."""
    hairpins = ", ".join(f"{address} . {address}" for address in here.pod_cidr.hosts())
    maps = {**MAPS, CLIENTS: _CLIENTS}
    declared = [
        *(_declared("map", name, what) for name, what in maps.items()),
        *(_declared("set", name, what) for name, what in SETS.items()),
        _declared("set", "hairpins", f"{_HAIRPINS}\n\t\telements = {{ {hairpins} }}"),
        *(_declared("chain", name, "\n\t\t".join(rules)) for name, rules in fixed_chains(here).items()),
    ]
    return f"table ip {table} {{\n{''.join(declared)}}}\n"


def hooks(table: str) -> str:
    """The chains that bring packets in: with these the table takes effect."""
    chains = (_declared("chain", name, "\n\t\t".join(rules)) for name, rules in HOOKS.items())
    return f"table ip {table} {{\n{''.join(chains)}}}\n"


def chains(table: str, names: Iterable[str]) -> str:
    """Chains that are made when the first element leads to them."""
    made = [("first-use", _FIRST_USE), *((name, counted_chain(name)) for name in names)]
    return "".join(_made(table, name, rules) for name, rules in made)


HOOKS = {
    "nat-prerouting": ("type nat hook prerouting priority dstnat; policy accept;", "jump dispatch"),
    "nat-output": ("type nat hook output priority -100; policy accept;", "jump dispatch"),
    "nat-postrouting": ("type nat hook postrouting priority srcnat; policy accept;", "ct status dnat jump sources"),
}
"""Base chains: declaration and rules. All are nat: they see the first packet of a connection, and no other."""


def fixed_chains(here: Here) -> dict[str, tuple[str, ...]]:
    """Name to rules."""
    return {
        "first-use": _FIRST_USE,
        "refuse": ("reject with tcp reset", "reject"),
        "dispatch": (
            f"{_BY_KEY} @services",
            # See `_twice`; by a map of another kind, as whenever an element is added to `services`, the kernel goes
            # through all of them for each rule that uses it.
            f"{_DNAT} {_KEY} . {_NUMGEN} 1 map @endpoints",
            "ip daddr @cluster-ips goto refuse",
            f"ip daddr {here.service_cidr} drop",
        ),
        "guard": (*_twice(f"ip saddr . {_KEY} @allowed-sources {_BY_KEY} @guarded"), "drop"),
        **{name: counted_chain(name) for name in FIRST_SLOTS},
        "local": (
            *_twice(f"ip saddr {here.cluster_cidr} {_BY_KEY} @inside"),
            *_twice(f"fib saddr type local {_BY_KEY} @inside"),
            *_twice(f"{_BY_KEY} @outside"),
        ),
        "sticky": _sticky("pickers"),
        "sticky-outside": _sticky("outside-pickers"),
        "sources": (
            "ip saddr . ip daddr @hairpins goto masq",
            f"{_foreign(here.cluster_cidr)} ct original ip daddr @cluster-ips goto masq",
            *(f"meta l4proto {protocol} {_ORIGINAL} vmap @public" for protocol in ("tcp", "udp", "sctp")),
        ),
        "masq": (_MASQUERADE,),
        "masq-own": (f"fib saddr type local {_MASQUERADE}",),
    }


def counted_chain(name: str) -> tuple[str, ...]:
    """The rules of a chain whose name ends in a number: of endpoints, or of seconds.

    A packet that was sent to lb-8 just before its Service shrank to two endpoints may find its slot gone: each of these
    chains ends in the way to the one of its kind that takes the first slot. There, see `_twice`.
    """
    kind, _, number = name.rpartition("-")
    if kind == "remember":
        return (f"update @{CLIENTS} {{ ip saddr . meta mark timeout {duration(int(number))} : ct mark }}",)
    slot = f"{_KEY} . {_NUMGEN} {number}{f' offset {LOCAL_SLOTS}' if kind.endswith('local') else ''}"
    if kind.startswith("pick"):
        return f"ct mark set {slot} map @slots", *((f"ct mark 0x00000000 goto {kind}-1",) if number != "1" else ())
    dnat = f"{_DNAT} {slot} map @endpoints"
    return (dnat, f"goto {kind}-1") if number != "1" else (*_twice(dnat), "drop")


def duration(seconds: int) -> str:
    """As nft prints it: 10800 is 3h."""
    parts = zip((86400, 3600, 60, 1), ("d", "h", "m", "s"), strict=True)
    text = ""
    for unit, letter in parts:
        count, seconds = divmod(seconds, unit)
        text += f"{count}{letter}" if count else ""
    return text


def _made(table: str, name: str, rules: Iterable[str]) -> str:
    added = "".join(f"add rule ip {table} {name} {rule}\n" for rule in rules)
    return f"add chain ip {table} {name}\nflush chain ip {table} {name}\n{added}"


def _twice(rule: str) -> tuple[str, str]:
    """For an element that changes its value: a look-up that began before the commit and is not done when it ends may
    find neither the old value nor the new one. One that begins afterwards finds the new one."""
    return rule, rule


def _sticky(pickers: str) -> tuple[str, ...]:
    """Affinity: the packet's mark is the Service for as long as it is looked up, the connection's is the endpoint.

    An entry may name an endpoint that has gone: then, as without any, one is picked, and is what the client keeps.
    """
    dnat = f"meta mark set 0x00000000 {_DNAT} {_KEY} . ct mark map @sticky-endpoints"
    service = f"meta mark set {_KEY} map @sticky-services"
    return (
        f"{service} ct mark set ip saddr . meta mark map @{CLIENTS} {_BY_KEY} @timeouts",
        dnat,
        f"ct mark set 0x00000000 {_BY_KEY} @{pickers}",
        f"{service} delete @{CLIENTS} {{ ip saddr . meta mark : ct mark }}",  # an update leaves the value as it was
        f"{_BY_KEY} @timeouts",
        dnat,
        "drop",
    )


def _foreign(cluster_cidr: IPv4Network) -> str:
    """Neither a pod nor a process of this node."""
    return f"ip saddr != {cluster_cidr} fib saddr type != local"


def _declared(kind: str, name: str, body: str) -> str:
    return f"\t{kind} {name} {{\n\t\t{body}\n\t}}\n"
