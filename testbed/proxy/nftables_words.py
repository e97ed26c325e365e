"""Mode `nftables` in words: how the kernel's rules differ from ours, and the way of a connection through them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import IPv4Address

from testbed.proxy.nftables_elements import Elements, client_mark
from testbed.proxy.nftables_listing import Client
from testbed.proxy.nftables_rules import LOCAL_SLOTS, duration
from testbed.proxy.virtualport import VirtualPort

Maps = dict[str, dict[str, str]]
"""Name of a map or set to its keys and values."""
Rules = Mapping[str, tuple[str, ...]]

_ON_THE_WAY = ("services", "guarded", "inside", "outside", "pickers", "outside-pickers", "timeouts", "public")
"""The maps of verdicts, in the order in which a packet meets them."""
_WORDS = {
    "goto refuse": "it is refused: TCP with a reset, UDP with an ICMP error",
    "drop": "it is dropped",
    "goto guard": "only sources in set allowed-sources may go on, others are dropped",
    "goto local": "pods and this node go on by map inside, others by map outside",
    "goto masq": "it leaves with this node's address as its source",
    "goto masq-own": "from a process of this node, it leaves with the address of its way as its source",
    "goto sticky": "to the endpoint that map clients has for the client, or else to one that is picked",
    "goto sticky-outside": "to the endpoint that map clients has for the client, or else to one that is picked",
}


def differing_rules(wanted: Rules, there: Rules) -> list[str]:
    """Rules that are missing (`+`) and that are too many (`-`), chain by chain."""
    found: list[str] = []
    for name in sorted({*wanted, *there}):
        ours, theirs = wanted.get(name, ()), there.get(name, ())
        if ours != theirs:
            found += [f"- chain {name}: {rule}" for rule in theirs if rule not in ours]
            found += [f"+ chain {name}: {rule}" for rule in ours if rule not in theirs]
            if set(ours) == set(theirs):
                found += [f"- chain {name}: rules in another order, or twice"]
    return found


def take_off(there: Maps, wanted: Elements) -> list[str]:
    """Take the wanted elements off those that are there; what of them was missing or had another value."""
    found: list[str] = []
    for (name, key), value in wanted.items():
        actual = there[name].pop(key, None)
        if actual != value:
            found += [_line("-", name, key, actual)] if actual is not None else []
            found += [_line("+", name, key, value)]
    return found


def left_over(there: Maps) -> list[str]:
    """What nobody wants."""
    return [_line("-", name, key, value) for name, elements in there.items() for key, value in elements.items()]


def path(
    port: VirtualPort, table: str, node_addresses: Collection[IPv4Address], there: Maps, clients: Sequence[Client]
) -> list[str]:
    """The way of a new connection, address by address, by the elements that are there."""
    fronts = [("ClusterIP", port.cluster_ip, port.port)]
    fronts += [("external IP", address, port.port) for address in port.external_ips]
    fronts += [("load balancer", address, port.port) for address in port.load_balancer_ips]
    fronts += [("node port", address, port.node_port) for address in sorted(node_addresses) if port.node_port]
    lines: list[str] = []
    for what, address, number in fronts:
        key = f"{address} . {port.protocol} . {number}"
        lines += [f"{what} {address}:{number}/{port.protocol}, table {table}:"]
        lines += [f"  {line}" for line in _steps(key, there)]
    mine = f"0x{client_mark(port):08x}"
    kept = [client for client in clients if client.service == mine]
    return lines + [f"client {each.address} keeps {_address(each.endpoint)} for {each.expires} more" for each in kept]


def _steps(key: str, there: Maps) -> Iterator[str]:
    if key not in there.get("services", {}):
        yield f"map services has no {{ {key} }}: it is refused where set cluster-ips has the address"
        return
    for name in _ON_THE_WAY:
        if verdict := there.get(name, {}).get(key):
            yield f"map {name} {{ {key} : {verdict} }}: {_words(verdict, key, there)}"
            if verdict == "goto guard":
                ranges = [each for each in there.get("allowed-sources", {}) if each.endswith(f" . {key}")]
                yield f"set allowed-sources: {', '.join(each.partition(' ')[0] for each in ranges) or 'nobody'}"


def _words(verdict: str, key: str, there: Maps) -> str:
    if verdict in _WORDS:
        return _WORDS[verdict]
    chain, _, number = verdict.rpartition("-")
    if chain.endswith("remember"):
        return f"the client keeps its endpoint for {duration(int(number))} after its last connection"
    first = LOCAL_SLOTS if chain.endswith("local") else 0
    slots = [f"{key} . {slot}" for slot in range(first, first + int(number))]
    values = [there.get("slots" if "pick" in chain else "endpoints", {}).get(slot, "nobody") for slot in slots]
    if "pick" in chain:
        values = [there.get("sticky-endpoints", {}).get(f"{key} . {mark}", "nobody") for mark in values]
    return f"one of {number} at random, {', '.join(value.replace(' . ', ':') for value in values)}"


def _address(mark: str) -> IPv4Address:
    return IPv4Address(int(mark, 16))


def _line(sign: str, name: str, key: str, value: str | None) -> str:
    return f"{sign} {name} {{ {key}{f' : {value}' if value else ''} }}"
