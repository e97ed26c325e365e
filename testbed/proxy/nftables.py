"""Virtual ports as nftables rules, with one endpoint map that all Services share. Pure.

The path of a new connection from a pod (prerouting) or from a process of the node itself (output):

    10.96.0.10:80 ─ dispatch ─ map services ─▶ chain lb-3 ─ random slot 0…2 ─ map endpoints ─▶ 10.244.2.7:8080

Replies, and every later packet of the connection, follow conntrack and see no rule of this table.

A Service costs elements, never rules: one in `services` per port, one in `endpoints` per port and endpoint, and one in
`cluster-ips`. There is a chain for each *number* of endpoints, however many Services have that number, so adding,
scaling and removing a Service is adding and deleting elements; no chain must wait to be unreferenced. The chains are
made beforehand, up to a power of two: nft 1.0.6 refuses a rule that uses a map with `th dport` which it has read back
from the kernel ("conflicting protocols specified"). A Service that outgrows them costs one load of everything.

- Each lb chain ends in the way to lb-1, which takes slot 0: a packet that entered lb-8 just before its Service shrank
  to two endpoints may find its slot gone.
- What is in `cluster-ips` but not in `services` has no endpoint, or names a port that does not exist: it is refused at
  once, TCP with a reset (ICMP errors are rate limited). This is done where the destination is looked up, in the nat
  chains, and not in a filter chain (as kube-proxy does, for kernels before 5.9): nat chains see the first packet of a
  connection, filter chains all of them, which made 0.8 µs of a round trip of 33 µs between two nodes.
- A pod that reaches itself through a Service (hairpin) must not see its own address as the source: the connection is
  masqueraded. Only addresses of this node's pods can be in that place, so the set is made once, from its pod CIDR.

What others may rely on: the tables are ours alone; nothing is marked, nothing is accepted on behalf of others; all
chains are nat, at dstnat and srcnat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network

from testbed.proxy.servicemap import VirtualPort

TABLE = "testbed-proxy"
NEXT_TABLE = "testbed-proxy-next"
"""Where a ruleset too large for one transaction is put together before it takes over."""

SERVICES, ENDPOINTS, CLUSTER_IPS = "services", "endpoints", "cluster-ips"

Elements = Mapping[tuple[str, str], str]
"""(map, key) to value; the value is empty for an element of a set."""

_UNIT = 250
"""Elements to a statement: also the grain in which a large load is cut into transactions."""

_KEY = "ip daddr . meta l4proto . th dport"

_OBJECTS = """\
table ip {table} {{
  map services {{ typeof {key} : verdict; }}
  map endpoints {{ typeof {key} . numgen random mod 65536 : ip daddr . th dport; }}
  set cluster-ips {{ type ipv4_addr; }}
  set hairpins {{ type ipv4_addr . ipv4_addr; {hairpins}}}
  chain dispatch {{
    {key} vmap @services
    ip daddr @cluster-ips goto refuse
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmp port-unreachable
  }}
}}
"""

_HOOKS = """\
table ip {table} {{
  chain nat-prerouting {{ type nat hook prerouting priority -100; jump dispatch; }}
  chain nat-output {{ type nat hook output priority -100; jump dispatch; }}
  chain nat-postrouting {{
    type nat hook postrouting priority 100
    ct status dnat ip saddr . ip daddr @hairpins masquerade fully-random
  }}
}}
"""


def render(ports: Iterable[VirtualPort], pod_cidr: IPv4Network, table: str = TABLE) -> str:
    """The whole ruleset as one script that replaces whatever was there, in one transaction."""
    wanted = elements(ports)
    parts = [delete(TABLE), delete(NEXT_TABLE), objects(table, pod_cidr, capacity(wanted))]
    return "".join([*parts, *change(table, {}, wanted), hooks(table)])


def elements(ports: Iterable[VirtualPort]) -> dict[tuple[str, str], str]:
    """The elements that stand for the ports."""
    found: dict[tuple[str, str], str] = {}
    for port in ports:
        key = f"{port.address} . {port.protocol} . {port.port}"
        found[CLUSTER_IPS, str(port.address)] = ""
        if port.endpoints:
            found[SERVICES, key] = f"goto lb-{len(port.endpoints)}"
        for slot, (address, number) in enumerate(port.endpoints):
            found[ENDPOINTS, f"{key} . {slot}"] = f"{address} . {number}"
    return found


def change(table: str, before: Elements, after: Elements) -> list[str]:
    """Statements that turn one set of elements into the other.

    Their order keeps every state between them correct: a Service never points at an endpoint that is not there, so
    they may be loaded in several transactions where one is too large.
    """
    gone = [each for each in before if each not in after]
    added = [each for each in after if each not in before]
    changed = [each for each in after if each in before and before[each] != after[each]]
    return [
        *_statements(table, ENDPOINTS, added, after, "add"),
        *_statements(table, CLUSTER_IPS, added, after, "add"),
        *_statements(table, SERVICES, changed, after, "delete", "add"),
        *_statements(table, SERVICES, added, after, "add"),
        *_statements(table, ENDPOINTS, changed, after, "delete", "add"),
        *_statements(table, SERVICES, gone, before, "delete"),
        *_statements(table, CLUSTER_IPS, gone, before, "delete"),
        *_statements(table, ENDPOINTS, gone, before, "delete"),
    ]


def capacity(wanted: Elements) -> int:
    """The number of endpoints up to which there are chains: a power of two, at least 16, that suffices."""
    most = max((_count(value) for (where, _), value in wanted.items() if where == SERVICES), default=0)
    return max(16, 1 << (most - 1).bit_length())


def objects(table: str, pod_cidr: IPv4Network, capacity: int) -> str:
    """The table with its empty maps and sets, and the chains that no packet enters yet."""
    hairpins = ", ".join(f"{address} . {address}" for address in pod_cidr.hosts())
    start = _OBJECTS.format(table=table, key=_KEY, hairpins=f"elements = {{ {hairpins} }}; ")
    return start + "".join(_chain(table, count) for count in range(1, capacity + 1))


def hooks(table: str) -> str:
    """The chains that bring packets in: with these the table takes effect."""
    return _HOOKS.format(table=table)


def delete(table: str) -> str:
    """No table of that name, whether or not there was one."""
    return f"add table ip {table}\ndelete table ip {table}\n"


def _count(verdict: str) -> int:
    return int(verdict.rpartition("-")[2])


def _chain(table: str, count: int) -> str:
    """The chain for `count` endpoints. Kept small, because all of them travel in one transaction with the map they use.

    nft maps to a port only behind a match on the transport protocol; a set of protocols would be one more object each.
    """
    pick = f"meta l4proto != icmp dnat ip to {_KEY} . numgen random mod {count} map @endpoints"
    otherwise = f"add rule ip {table} lb-{count} goto lb-1\n" if count > 1 else ""
    return f"add chain ip {table} lb-{count}\nadd rule ip {table} lb-{count} {pick}\n{otherwise}"


def _statements(
    table: str, where: str, which: Sequence[tuple[str, str]], values: Elements, *verbs: str
) -> Iterator[str]:
    keys = [(name, key) for name, key in which if name == where]
    for start in range(0, len(keys), _UNIT):
        unit = keys[start : start + _UNIT]
        yield "".join(
            f"{verb} element ip {table} {where} {{ {', '.join(_element(each, values, verb) for each in unit)} }}\n"
            for verb in verbs
        )


def _element(which: tuple[str, str], values: Elements, verb: str) -> str:
    value = values[which] if verb == "add" else ""
    return f"{which[1]} : {value}" if value else which[1]
