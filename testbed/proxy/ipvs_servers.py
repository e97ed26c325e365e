"""Virtual ports as what mode `ipvs` puts into the kernel: virtual servers, bound addresses, elements of rules. Pure.

A virtual server is made only where it has somebody to send to. The rules (`ipvs_rules`) refuse or drop the rest, decide
who may come in, and which connections are masqueraded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, collapse_addresses
from typing import TypeAlias

from testbed.kernel.ipvs_wire import Real, Server
from testbed.proxy.ipvs_rules import ALLOWED, GUARDED, PORTS, REFUSALS, SERVICE_IPS, SOURCES, Name
from testbed.proxy.virtualport import Endpoint, Here, Refusal, VirtualPort


@dataclass(frozen=True, slots=True)
class Serving:
    """How a virtual server serves."""

    persistence_s: int
    reals: frozenset[Real]


Fact: TypeAlias = Server | IPv4Address | Name
"""A virtual server, an address bound to the device, or an element of a map or set."""
Value: TypeAlias = Serving | str
"""Of a virtual server, or of an element of a map; empty for the others."""
Facts: TypeAlias = Mapping[Fact, Value]

_VERDICTS: dict[Refusal, str] = {"refuse": "goto refuse", "drop": "drop"}


@dataclass(frozen=True)
class Node:
    """What of the node matters here."""

    here: Here
    addresses: Collection[IPv4Address]
    """Its own, at which node ports are served."""


def facts(ports: Iterable[VirtualPort], node: Node) -> dict[Fact, Value]:
    """Everything that stands for the ports of one Service."""
    found: dict[Fact, Value] = {}
    for port in ports:
        found |= _internal(port)
        for server, is_balanced in _external_servers(port, node.addresses):
            found |= _external(port, server, node)
            if is_balanced and port.source_ranges:
                found |= _guard(port, server, node)
    return found


def servers(found: Facts) -> dict[Server, Serving]:
    """Those facts that are virtual servers."""
    return {fact: value for fact, value in found.items() if isinstance(fact, Server) and isinstance(value, Serving)}


def addresses(found: Facts) -> set[IPv4Address]:
    """Those that are bound addresses."""
    return {fact for fact in found if isinstance(fact, IPv4Address)}


def elements(found: Facts) -> dict[Name, str]:
    """Those that are elements."""
    return {fact: value for fact, value in found.items() if isinstance(fact, Name) and isinstance(value, str)}


def key(server: Server) -> str:
    """As the maps of the rules have it."""
    return f"{server.address} . {server.protocol} . {server.port}"


def cluster_server(port: VirtualPort) -> Server:
    """The virtual server of the ClusterIP."""
    return Server(port.cluster_ip, port.protocol, port.port)


def node_servers(port: VirtualPort, node: Node) -> list[Server]:
    """Those of the node port."""
    return [Server(address, port.protocol, port.node_port) for address in node.addresses if port.node_port]


def public_servers(port: VirtualPort) -> list[Server]:
    """Those of external and load balancer addresses."""
    return [Server(address, port.protocol, port.port) for address in port.public_ips]


def _external_servers(port: VirtualPort, node_addresses: Collection[IPv4Address]) -> Iterator[tuple[Server, bool]]:
    """Each with whether it is at a load balancer's address."""
    for server in public_servers(port):
        yield server, server.address in port.load_balancer_ips
    for address in node_addresses if port.node_port else ():
        yield Server(address, port.protocol, port.node_port), False


def _internal(port: VirtualPort) -> dict[Fact, Value]:
    server = cluster_server(port)
    found: dict[Fact, Value] = {server.address: "", Name(SERVICE_IPS, str(server.address)): ""}
    return found | _way(port, server, port.internal, port.internal_refusal, "goto masq-foreign")


def _external(port: VirtualPort, server: Server, node: Node) -> dict[Fact, Value]:
    """At the node's own addresses nothing needs to be bound, and every other port is somebody else's."""
    found: dict[Fact, Value] = {}
    if server.address not in node.addresses:
        found = {server.address: "", Name(SERVICE_IPS, str(server.address)): ""}
    masquerade = "goto masq-own" if port.is_external_local else "goto masq"
    return found | _way(port, server, port.external, port.external_refusal, masquerade)


def _way(
    port: VirtualPort, server: Server, endpoints: Iterable[Endpoint], refusal: Refusal, masquerade: str
) -> dict[Fact, Value]:
    if refusal:
        return {Name(REFUSALS, key(server)): _VERDICTS[refusal]}
    return {
        server: Serving(port.affinity_s, frozenset(Real(*endpoint) for endpoint in endpoints)),
        Name(PORTS, key(server)): "",
        Name(SOURCES, key(server)): masquerade,
    }


def _guard(port: VirtualPort, server: Server, node: Node) -> dict[Fact, Value]:
    """Ranges that overlap would be refused by a set of intervals.

    A process of the node itself comes from the very address that it asks, as that is bound to the node.
    """
    sources = [_printed(str(network)) for network in collapse_addresses(port.source_ranges)]
    if any(node.here.address in network for network in port.source_ranges):
        sources.append(str(server.address))
    allowed: dict[Fact, Value] = {Name(ALLOWED, f"{source} . {key(server)}"): "" for source in sources}
    return {Name(GUARDED, key(server)): ""} | allowed


def _printed(network: str) -> str:
    """As nft prints it: one address without its length."""
    return network.removesuffix("/32")
