"""Mode `nftables` in words: how the kernel's rules differ from ours, and the way of a connection through them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import IPv4Address

from testbed.proxy.nftables_elements import Elements, client_mark
from testbed.proxy.nftables_listing import Client
from testbed.proxy.virtualport import VirtualPort

Maps = dict[str, dict[str, str]]
"""Name of a map or set to its keys and values."""
Rules = Mapping[str, tuple[str, ...]]

_WORDS = {
    "goto refuse": "it is refused: TCP with a reset, UDP with an ICMP error",
    "drop": "it is dropped",
    "goto guard": "only sources in set allowed-sources may go on, others are dropped",
    "goto local": "pods and this node go on by map inside, others by map outside",
    "goto masq": "it leaves with this node's address as its source",
    "goto masq-own": "from a process of this node, it leaves with the address of its way as its source",
    "goto sticky": "the client keeps its endpoint",
    "goto sticky-outside": "the client keeps its endpoint",
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
    entry = there.get("services", {}).get(key)
    if entry is None:
        yield f"map services has no element {{ {key} }}: what set cluster-ips holds is refused"
        return
    for name in ("services", "guarded", "inside", "outside", "pickers", "outside-pickers", "timeouts", "public"):
        if verdict := there.get(name, {}).get(key):
            words = _WORDS.get(verdict)
            yield f"map {name} {{ {key} : {verdict} }}{f': {words}' if words else ''}"
    for name in ("endpoints", "sticky-endpoints", "allowed-sources"):
        for element, value in there.get(name, {}).items():
            if element.startswith(f"{key} . ") or element.endswith(f" . {key}"):
                yield f"{'set' if not value else 'map'} {name} {{ {element}{f' : {value}' if value else ''} }}"


def _address(mark: str) -> IPv4Address:
    return IPv4Address(int(mark, 16))


def _line(sign: str, name: str, key: str, value: str | None) -> str:
    return f"{sign} {name} {{ {key}{f' : {value}' if value else ''} }}"
