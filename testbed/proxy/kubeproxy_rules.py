"""Virtual ports in the layout of kube-proxy 1.36's nftables mode. Pure.

The path of a new connection (base chains in the order of the packet's way, by hook and priority):

    filter-…-pre-dnat ─ firewall-check ─ map firewall-ips ─▶ firewall-…: who may come in by a load balancer's address
    nat-prerouting, nat-output ─ services ─ map service-ips, service-nodeports
        ├▶ service-… (local-…): dnat to a random endpoint; with affinity, to the endpoint-… that knows the client
        └▶ external-…: masquerading is decided here; then service-… or local-…
    filter-input, -forward, -output ─ maps no-endpoint-…; cluster-ips-check: no such port, or no such address
    nat-postrouting ─ masquerading: what is marked with 0x4000, and who reaches itself (hairpin-connections)

A port of a Service costs a chain, a rule and an anonymous map for each traffic policy, and elements. Names are
kube-proxy's own: eight characters of a hash, and what a person wants to read.

What is written is what `nft list table` prints, so both can be compared as text. Two things differ from kube-proxy:
TCP is refused with a reset, because ICMP errors are rate limited and a test that is refused often would wait; and
the elements of no-endpoint-… carry no comment.

Source: kubernetes pkg/proxy/nftables (proxier.go, README.md), KEP-3866.
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import NamedTuple

from testbed.proxy.kubeproxy_table import MARK_IT, NODE_PORT_IPS, serves_every_address
from testbed.proxy.virtualport import Endpoint, Here, Refusal, VirtualPort

SERVICE_IPS, NODE_PORTS, FIREWALL_IPS = "service-ips", "service-nodeports", "firewall-ips"
NO_ENDPOINT_SERVICES, NO_ENDPOINT_NODE_PORTS = "no-endpoint-services", "no-endpoint-nodeports"
CLUSTER_IPS, HAIRPINS = "cluster-ips", "hairpin-connections"

_VERDICTS: Mapping[Refusal, str] = {"refuse": "goto reject-chain", "drop": "drop"}


class Element(NamedTuple):
    """Of a set or map of the table."""

    where: str
    key: str


@dataclass(frozen=True)
class Objects:
    """What stands in the table, beside the skeleton."""

    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Rules by chain. None of them leads to one behind it."""
    sets: dict[str, int] = field(default_factory=dict)
    """Affinity sets, each with its timeout in seconds."""
    elements: dict[Element, str] = field(default_factory=dict)
    """Values of map elements; empty for an element of a set."""

    def add(self, other: Objects) -> None:
        """Take the other's in."""
        self.chains.update(other.chains)
        self.sets.update(other.sets)
        self.elements.update(other.elements)


def node_port_ips(here: Here, addresses: Iterable[IPv4Address]) -> dict[Element, str]:
    """The elements of nodeport-ips, where node ports are served at these addresses of the node."""
    if serves_every_address(here):
        return {}
    return {Element(NODE_PORT_IPS, str(each)): "" for each in addresses}


def objects(port: VirtualPort, here: Here) -> Objects:
    """What one port is made of, without what other Services may have in common with it."""
    names = Names(port)
    chains: dict[str, tuple[str, ...]] = {}
    sets: dict[str, int] = {}
    for endpoint in names.endpoints if port.affinity_s else ():
        affinity = names.affinity(endpoint)
        sets[affinity] = port.affinity_s
        chains[names.endpoint(endpoint)] = (f"update @{affinity} {{ ip saddr }}", _dnat(port, endpoint))
    chains.update(_policy_chains(port, names))
    if names.has_external:
        chains[names.external] = tuple(_external_rules(port, here, names))
    if names.has_firewall:
        chains[names.firewall] = (f"ip saddr != {_sources(_allowed(port, here))} drop",)
    return Objects(chains, sets, _own_elements(port, names))


def claims(port: VirtualPort, here: Here) -> dict[Element, str]:
    """The elements that other Services may have too: of addresses from outside, and of the endpoints on this node."""
    names = Names(port)
    found: dict[Element, str] = {}
    for address in port.public_ips:
        key = f"{address} . {port.protocol} . {port.port}"
        if names.has_external:
            found[Element(SERVICE_IPS, key)] = f"goto {names.external}"
        if port.external_refusal:
            found[Element(NO_ENDPOINT_SERVICES, key)] = _VERDICTS[port.external_refusal]
        if names.has_firewall and address in port.load_balancer_ips:
            found[Element(FIREWALL_IPS, key)] = f"goto {names.firewall}"
    for endpoint in names.endpoints:
        if endpoint.address in here.pod_cidr or endpoint.address == here.address:
            twice = f"{endpoint.address} . {endpoint.address}"
            found[Element(HAIRPINS, f"{twice} . {port.protocol} . {endpoint.port}")] = ""
    return found


class Names:
    """What the objects of a port are called, and which of them it has."""

    def __init__(self, port: VirtualPort) -> None:
        self._path = f"{port.service.namespace}/{port.service.name}/{port.protocol}/{port.name}"
        base = _hashed(self._path)
        self.service, self.local = f"service-{base}", f"local-{base}"
        self.external, self.firewall = f"external-{base}", f"firewall-{base}"
        is_public = bool(port.node_port or port.public_ips)
        self.has_external = is_public and bool(port.cluster or port.external)
        self.has_firewall = bool(port.load_balancer_ips and port.source_ranges)
        self.has_service = bool(port.cluster) and (not port.is_internal_local or is_public)
        self.has_local = bool(port.local) and (port.is_internal_local or (is_public and port.is_external_local))
        reached = (port.cluster if self.has_service else ()) + (port.local if self.has_local else ())
        self.endpoints = tuple(dict.fromkeys(reached))

    def endpoint(self, endpoint: Endpoint) -> str:
        """Its chain."""
        return f"endpoint-{self._endpoint(endpoint)}"

    def affinity(self, endpoint: Endpoint) -> str:
        """The set of clients that stick to it."""
        return f"affinity-{self._endpoint(endpoint)}"

    def _endpoint(self, endpoint: Endpoint) -> str:
        return _hashed(f"{self._path}__{endpoint.address}/{endpoint.port}")


def _own_elements(port: VirtualPort, names: Names) -> dict[Element, str]:
    found = {Element(CLUSTER_IPS, str(port.cluster_ip)): ""}
    key = f"{port.cluster_ip} . {port.protocol} . {port.port}"
    if port.internal_refusal:
        found[Element(NO_ENDPOINT_SERVICES, key)] = _VERDICTS[port.internal_refusal]
    else:
        found[Element(SERVICE_IPS, key)] = f"goto {names.local if port.is_internal_local else names.service}"
    if port.node_port:
        key = f"{port.protocol} . {port.node_port}"
        if names.has_external:
            found[Element(NODE_PORTS, key)] = f"goto {names.external}"
        if port.external_refusal:
            found[Element(NO_ENDPOINT_NODE_PORTS, key)] = _VERDICTS[port.external_refusal]
    return found


def _policy_chains(port: VirtualPort, names: Names) -> Iterator[tuple[str, tuple[str, ...]]]:
    if names.has_service:
        yield names.service, tuple(_choice(port, names, port.cluster))
    if names.has_local:
        yield names.local, tuple(_choice(port, names, port.local))


def _choice(port: VirtualPort, names: Names, endpoints: Sequence[Endpoint]) -> Iterator[str]:
    if not port.affinity_s:
        slots = ", ".join(f"{slot} : {each.address} . {each.port}" for slot, each in enumerate(endpoints))
        yield f"meta l4proto {port.protocol} dnat ip to numgen random mod {len(endpoints)} map {{ {slots} }}"
        return
    for each in endpoints:
        yield f"ip saddr @{names.affinity(each)} goto {names.endpoint(each)}"
    slots = ", ".join(f"{slot} : goto {names.endpoint(each)}" for slot, each in enumerate(endpoints))
    yield f"numgen random mod {len(endpoints)} vmap {{ {slots} }}"


def _external_rules(port: VirtualPort, here: Here, names: Names) -> Iterator[str]:
    if not port.is_external_local:
        yield MARK_IT
        yield f"goto {names.service}"
        return
    if names.has_service:
        yield f'ip saddr {here.cluster_cidr} goto {names.service} comment "short-circuit pod traffic"'
        yield f'fib saddr type local {MARK_IT} comment "masquerade local traffic"'
        yield f'fib saddr type local goto {names.service} comment "short-circuit local traffic"'
    if names.has_local:
        yield f"goto {names.local}"


def _dnat(port: VirtualPort, endpoint: Endpoint) -> str:
    return f"meta l4proto {port.protocol} dnat to {endpoint.address}:{endpoint.port}"


def _allowed(port: VirtualPort, here: Here) -> list[IPv4Network]:
    """Where a range has the node in it, also the addresses themselves: what is addressed to them from the node is
    sent under them, where a load balancer has made them the node's own."""
    if any(here.address in each for each in port.source_ranges):
        return [*port.source_ranges, *map(IPv4Network, port.load_balancer_ips)]
    return list(port.source_ranges)


def _sources(networks: Collection[IPv4Network]) -> str:
    """As nft prints a set of them: sorted, without braces around a single one, and what adjoins merged into a range."""
    sorted_ones = list(collapse_addresses(networks))
    if all(each.prefixlen == 32 for each in networks):
        sorted_ones = sorted(set(networks))
    ranges: list[tuple[int, int]] = []
    for each in sorted_ones:
        first, last = int(each[0]), int(each[-1])
        if ranges and ranges[-1][1] + 1 == first and any(one.prefixlen < 32 for one in networks):
            first = ranges.pop()[0]
        ranges.append((first, last))
    shown = [_range(*each) for each in ranges]
    return shown[0] if len(shown) == 1 and len(set(networks)) == 1 else f"{{ {', '.join(shown)} }}"


def _range(first: int, last: int) -> str:
    size = last - first + 1
    if size & (size - 1) == 0 and first % size == 0:
        return str(IPv4Network((first, 33 - size.bit_length()))).removesuffix("/32")
    return f"{IPv4Address(first)}-{IPv4Address(last)}"


def _hashed(name: str) -> str:
    return f"{b32encode(sha256(name.encode()).digest()[:5]).decode()}-{name}"
