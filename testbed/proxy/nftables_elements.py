"""The elements of mode `nftables`: what each virtual port puts into the maps, and statements that change them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from itertools import chain
from zlib import crc32

from testbed.api.objects import Key
from testbed.proxy.nftables_rules import LOCAL_SLOTS
from testbed.proxy.virtualport import Endpoint, Refusal, VirtualPort

Name = tuple[str, str]
"""Map or set, and key."""
Elements = Mapping[Name, str]
"""Name to value; the value is empty for an element of a set."""

_REFUSALS: dict[Refusal, str] = {"refuse": "goto refuse", "drop": "drop"}
_UNIT = 250
"""Elements to a statement: also the grain in which what is large is cut into transactions."""
_BEHIND = (
    "endpoints",
    "slots",
    "sticky-endpoints",
    "sticky-services",
    "pickers",
    "outside-pickers",
    "timeouts",
    "inside",
    "outside",
    "guarded",
    "cluster-ips",
    "public",
)
"""What must be there before `services` leads to it, in the order in which it is added."""
_VERDICTS = ("pickers", "outside-pickers", "inside", "outside", "guarded", "services")


def elements(
    ports: Iterable[VirtualPort], node_addresses: Collection[IPv4Address], owners: Mapping[str, Key] | None = None
) -> dict[Name, str]:
    """The elements that stand for the ports, on a node that serves node ports at these addresses.

    `owners` says which Service has a public key, where several may claim one.
    """
    found: dict[Name, str] = {}
    for port in ports:
        found["cluster-ips", str(port.cluster_ip)] = ""
        _internal(found, port)
        guarded = {key_of(address, port) for address in port.load_balancer_ips} if port.source_ranges else set[str]()
        for key in public_keys(port, node_addresses):
            if not owners or owners.get(key, port.service) == port.service:
                _external(found, port, key)
                if key in guarded:
                    _guard(found, port, key)
    return found


def public_keys(port: VirtualPort, node_addresses: Collection[IPv4Address]) -> list[str]:
    """The keys at which the port is reached from outside: several Services may claim the same."""
    keys = [key_of(address, port) for address in port.public_ips]
    return keys + [f"{address!s} . {port.protocol} . {port.node_port}" for address in node_addresses if port.node_port]


def key_of(address: IPv4Address, port: VirtualPort) -> str:
    """The key of the port at this address, where it has the number of the ClusterIP's port."""
    return f"{address!s} . {port.protocol} . {port.port}"


def chains_of(wanted: Elements) -> set[str]:
    """The chains that are made when an element leads to them."""
    targets = {value for (name, _), value in wanted.items() if name in _VERDICTS or name == "timeouts"}
    names = {target.rpartition(" ")[2] for target in targets}
    return {name for name in names if name.rpartition("-")[2].isdecimal()}


def change(table: str, before: Elements, after: Elements) -> list[str]:
    """Statements that turn one set of elements into the other.

    Their order keeps every state between them correct: nothing points at what is not there, so they may be loaded in
    several transactions where one is too large.
    """
    gone = _by_map(name for name in before if name not in after)
    added = _by_map(name for name in after if name not in before)
    changed = _by_map(name for name, value in after.items() if before.get(name, value) != value)
    return list(
        chain(
            _swapped(
                table, "allowed-sources", gone.pop("allowed-sources", ()), added.get("allowed-sources", ()), after
            ),
            *(statements(table, name, added[name], after) for name in _BEHIND if name in added),
            *(_replace(table, name, changed[name], after) for name in _VERDICTS if name in changed),
            statements(table, "services", added.get("services", ()), after),
            *(_replace(table, name, keys, after) for name, keys in changed.items() if name not in _VERDICTS),
            *(_delete(table, name, gone[name]) for name in ("services", *reversed(_BEHIND)) if name in gone),
        )
    )


def statements(table: str, name: str, keys: Sequence[str], values: Elements) -> Iterator[str]:
    """Statements that add these elements of a map."""
    for start in range(0, len(keys), _UNIT):
        yield _statement("add", table, name, [_element(name, key, values) for key in keys[start : start + _UNIT]])


def by_map(wanted: Elements) -> dict[str, list[str]]:
    """The keys of each map."""
    return _by_map(wanted)


def client_mark(port: VirtualPort) -> int:
    """The Service port in the map of clients.

    Two that share a number by chance only forget a client that uses both: an entry counts where its endpoint is one
    of the port's. A port that changes its timeout or policy gets another number, and starts afresh.
    """
    identity = (port.cluster_ip, port.protocol, port.port, port.affinity_s, port.is_external_local)
    return crc32(" ".join(map(str, identity)).encode())


def endpoint_marks(endpoints: Iterable[Endpoint]) -> dict[Endpoint, int]:
    """A number for each endpoint that does not depend on the others, so that it survives their going: its address.

    Only of endpoints that share an address (by hand one can write so), one has another number.
    """
    found: dict[int, Endpoint] = {}
    for endpoint in sorted(set(endpoints)):
        mark = int(endpoint.address)
        while mark in found:
            mark = (5 * mark + 1) % 2**32
        found[mark] = endpoint
    return {endpoint: mark for mark, endpoint in found.items()}


def _internal(found: dict[Name, str], port: VirtualPort) -> None:
    key = key_of(port.cluster_ip, port)
    if port.internal:
        found["services", key] = _way(found, port, key, port.internal)
    elif port.internal_refusal == "drop":  # what is to be refused is so, like every port that nobody has defined
        found["services", key] = "drop"


def _guard(found: dict[Name, str], port: VirtualPort, key: str) -> None:
    found["guarded", key] = found["services", key]
    found["services", key] = "goto guard"
    ranges = collapse_addresses(port.source_ranges)
    found |= {("allowed-sources", f"{_printed(network)} . {key}"): "" for network in ranges}


def _external(found: dict[Name, str], port: VirtualPort, key: str) -> None:
    if not port.is_external_local:
        found["services", key] = _way(found, port, key, port.cluster) or _REFUSALS[port.external_refusal]
        found["public", key] = "goto masq"
        return
    refusal = "goto refuse" if not port.has_endpoints else "drop"
    found["services", key] = "goto local"
    found["public", key] = "goto masq-own"
    found["inside", key] = _way(found, port, key, port.cluster) or refusal
    found["outside", key] = _way(found, port, key, port.local, LOCAL_SLOTS) or refusal


def _way(
    found: dict[Name, str], port: VirtualPort, key: str, endpoints: Sequence[Endpoint], first_slot: int = 0
) -> str:
    """The verdict that leads to these endpoints, after adding all that is needed on the way; empty without any."""
    if not endpoints:
        return ""
    if port.affinity_s:
        return _sticky_way(found, port, key, endpoints, first_slot)
    for slot, (address, number) in enumerate(endpoints, first_slot):
        found["endpoints", f"{key} . {slot}"] = f"{address!s} . {number}"
    return f"goto {'local' if first_slot else 'lb'}-{len(endpoints)}"


def _sticky_way(
    found: dict[Name, str], port: VirtualPort, key: str, endpoints: Sequence[Endpoint], first_slot: int
) -> str:
    marks = endpoint_marks(port.cluster + port.local)
    for slot, endpoint in enumerate(endpoints, first_slot):
        found["slots", f"{key} . {slot}"] = _mark(marks[endpoint])
        found["sticky-endpoints", f"{key} . {_mark(marks[endpoint])}"] = f"{endpoint.address} . {endpoint.port}"
    found["sticky-services", key] = _mark(client_mark(port))
    found["timeouts", key] = f"jump remember-{port.affinity_s}"
    if first_slot:
        found["outside-pickers", key] = f"jump pick-local-{len(endpoints)}"
        return "goto sticky-outside"
    found["pickers", key] = f"jump pick-{len(endpoints)}"
    return "goto sticky"


def _printed(network: IPv4Network) -> str:
    """As nft prints it: one address without its length."""
    return str(network) if network.prefixlen < network.max_prefixlen else str(network.network_address)


def _mark(number: int) -> str:
    return f"0x{number:08x}"


def _by_map(names: Iterable[Name]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, key in names:
        found.setdefault(name, []).append(key)
    return found


def _replace(table: str, name: str, keys: Sequence[str], values: Elements) -> Iterator[str]:
    for start in range(0, len(keys), _UNIT):
        unit = keys[start : start + _UNIT]
        yield _statement("delete", table, name, unit) + next(iter(statements(table, name, unit, values)))


def _swapped(table: str, name: str, gone: Sequence[str], added: Sequence[str], values: Elements) -> Iterator[str]:
    """One statement: intervals may not overlap, so the old ones go before the new ones come, and yet at once."""
    both = "".join(chain(_delete(table, name, gone), statements(table, name, added, values)))
    if both:
        yield both


def _delete(table: str, name: str, keys: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(keys), _UNIT):
        yield _statement("delete", table, name, keys[start : start + _UNIT])


def _statement(verb: str, table: str, name: str, listed: Iterable[str]) -> str:
    return f"{verb} element ip {table} {name} {{ {', '.join(listed)} }}\n"


def _element(name: str, key: str, values: Elements) -> str:
    value = values[name, key]
    return f"{key} : {value}" if value else key
