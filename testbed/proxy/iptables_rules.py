"""Virtual ports as kube-proxy's iptables mode renders them. Pure.

The path of a new connection, in tables nat and filter:

    PREROUTING, OUTPUT ─ KUBE-SERVICES: one rule after the other, for every address of every Service
        ├▶ KUBE-SVC-… ─ by chance ─▶ KUBE-SEP-…: DNAT          (KUBE-SVL-… for traffic policy Local)
        ├▶ KUBE-EXT-…: masquerading is decided here; then KUBE-SVC-… or KUBE-SVL-…
        ├▶ KUBE-FW-…: who may come in by a load balancer's address; then KUBE-EXT-…
        └▶ at last KUBE-NODEPORTS, for addresses of the node itself
    INPUT, FORWARD, OUTPUT ─ KUBE-SERVICES, KUBE-EXTERNAL-SERVICES: who has no endpoint is refused or dropped
                           ─ KUBE-PROXY-FIREWALL: who was not let in by KUBE-FW-…
    POSTROUTING ─ KUBE-POSTROUTING: masquerade what KUBE-MARK-MASQ has marked with 0x4000

So a connection costs a rule for each Service before its own. A port of a Service costs a chain for each traffic policy
and for each endpoint, with a rule or two in each, and a rule in the dispatching chains for each of its addresses.

Rules are written as iptables-save prints them, so both can be compared as text. As in kube-proxy, comments are left out
of the chains of Services where there are more than 1,000 endpoints. Different from kube-proxy: TCP is refused with a
reset, because ICMP errors are rate limited; KUBE-EXTERNAL-SERVICES guards OUTPUT too, so that the node itself is
refused; node ports at loopback addresses are never served, and route_localnet stays off. Unlike the nftables modes it
lets packets pass that go to a port that its Service does not have, or to a free address of the service CIDR; and of the
clients that stick to an endpoint it remembers the last 100 (ip_list_tot of xt_recent).

Source: kubernetes pkg/proxy/iptables/proxier.go.
"""

from __future__ import annotations

from base64 import b32encode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv4Address
from typing import NamedTuple

from testbed.proxy.virtualport import Endpoint, Here, Refusal, VirtualPort

Told = Callable[[str], str]
"""Makes a comment of a text, or nothing."""

LARGE_CLUSTER = 1000
"""The number of endpoints above which chains carry no comments."""

_HALF = 1 << 31
"""A probability is kept in 31 bits."""


class Chain(NamedTuple):
    """Of one of the tables."""

    table: str
    name: str


SERVICES, NODE_PORTS = Chain("nat", "KUBE-SERVICES"), Chain("nat", "KUBE-NODEPORTS")
REFUSALS, EXTERNAL_REFUSALS = Chain("filter", "KUBE-SERVICES"), Chain("filter", "KUBE-EXTERNAL-SERVICES")
FIREWALL = Chain("filter", "KUBE-PROXY-FIREWALL")

DISPATCHING = (SERVICES, NODE_PORTS, REFUSALS, EXTERNAL_REFUSALS, FIREWALL)
"""Chains with rules of all Services, whose order among themselves does not matter."""


@dataclass(frozen=True)
class Rules:
    """What Services are made of."""

    chains: dict[Chain, tuple[str, ...]] = field(default_factory=dict)
    """Their own chains. None of them is named by one before it."""
    dispatched: Counter[tuple[Chain, str]] = field(default_factory=Counter)
    """Their rules in the dispatching chains."""

    def add(self, other: Rules) -> None:
        """Take the other's in."""
        self.chains.update(other.chains)
        self.dispatched.update(other.dispatched)


def rules(port: VirtualPort, here: Here, *, is_large: bool) -> Rules:
    """Those of one port."""
    names = Names(port)
    told = _untold if is_large else _comment
    chains: dict[Chain, tuple[str, ...]] = {}
    for each, chain in names.endpoints.items():
        chains[nat(chain)] = tuple(_endpoint_rules(port, chain, each, told(names.title)))
    if names.has_cluster:
        chains[nat(names.cluster)] = tuple(_policy_rules(port, here, names, told, is_local=False))
    if names.has_local:
        chains[nat(names.local)] = tuple(_policy_rules(port, here, names, told, is_local=True))
    if names.has_external:
        chains[nat(names.external)] = tuple(_external_rules(port, here, names, told))
    if names.has_firewall:
        chains[nat(names.firewall)] = tuple(_firewall_rules(port, here, names, told))
    return Rules(chains, Counter({*_translated(port, names), *_refused(port, names)}))


def nat(name: str) -> Chain:
    """The chain of that name in table nat."""
    return Chain("nat", name)


class Names:
    """What the chains of a port are called, and which of them it has."""

    def __init__(self, port: VirtualPort) -> None:
        self.title = f"{port.service}:{port.name}" if port.name else str(port.service)
        base = self.title + port.protocol
        hashed = _hashed(base)
        self.cluster, self.local = f"KUBE-SVC-{hashed}", f"KUBE-SVL-{hashed}"
        self.external, self.firewall = f"KUBE-EXT-{hashed}", f"KUBE-FW-{hashed}"
        is_public = bool(port.node_port or port.public_ips)
        self.has_external = is_public and bool(port.cluster or port.external)
        self.has_firewall = self.has_external and bool(port.load_balancer_ips and port.source_ranges)
        self.has_cluster = bool(port.cluster) and (not port.is_internal_local or is_public)
        self.has_local = bool(port.local) and (port.is_internal_local or (is_public and port.is_external_local))
        reached = (port.cluster if self.has_cluster else ()) + (port.local if self.has_local else ())
        self.endpoints = {each: f"KUBE-SEP-{_hashed(f'{base}{each.address}:{each.port}')}" for each in reached}
        """Their chains; of the same names are the lists of clients that stick to them."""


def _endpoint_rules(port: VirtualPort, chain: str, endpoint: Endpoint, told: str) -> Iterator[str]:
    yield f"-s {endpoint.address}/32{told} -j KUBE-MARK-MASQ"
    remember = f" -m recent --set {_list(chain)}" if port.affinity_s else ""
    yield f"-p {port.protocol}{told}{remember} -j DNAT --to-destination {endpoint.address}:{endpoint.port}"


def _policy_rules(port: VirtualPort, here: Here, names: Names, told: Told, *, is_local: bool) -> Iterator[str]:
    """By chance, after those that know the client: the first with one in N, the next with one in N - 1, …"""
    endpoints = port.local if is_local else port.cluster
    if port.is_internal_local == is_local:
        to = _to(port, port.cluster_ip, told(f"{names.title} cluster IP"))
        yield f"! -s {here.cluster_cidr} {to} -j KUBE-MARK-MASQ"
    for each in endpoints if port.affinity_s else ():
        chain = names.endpoints[each]
        is_known = f"-m recent --rcheck --seconds {port.affinity_s} --reap {_list(chain)}"
        yield f"{told(_arrow(names, each))} {is_known} -j {chain}".strip()
    for left, each in zip(range(len(endpoints), 0, -1), endpoints, strict=True):
        chance = f" -m statistic --mode random --probability {_probability(left)}" if left > 1 else ""
        yield f"{told(_arrow(names, each))}{chance} -j {names.endpoints[each]}".strip()


def _external_rules(port: VirtualPort, here: Here, names: Names, told: Told) -> Iterator[str]:
    title = f"{names.title} external destinations"
    if not port.is_external_local:
        yield f"{told(f'masquerade traffic for {title}')} -j KUBE-MARK-MASQ".strip()
        yield f"-j {names.cluster}"
        return
    if names.has_cluster:
        is_local = "-m addrtype --src-type LOCAL"
        yield f"-s {here.cluster_cidr}{told(f'pod traffic for {title}')} -j {names.cluster}"
        yield f"{told(f'masquerade LOCAL traffic for {title}')} {is_local} -j KUBE-MARK-MASQ".strip()
        yield f"{told(f'route LOCAL traffic for {title}')} {is_local} -j {names.cluster}".strip()
    if names.has_local:
        yield f"-j {names.local}"


def _firewall_rules(port: VirtualPort, here: Here, names: Names, told: Told) -> Iterator[str]:
    """Where a range has the node in it, also the addresses themselves: what is addressed to them from the node is sent
    under them, where a load balancer has made them the node's own."""
    allowed = [str(each) for each in port.source_ranges]
    if any(here.address in each for each in port.source_ranges):
        allowed += [f"{each}/32" for each in port.load_balancer_ips]
    for each in allowed:
        source = "" if each == "0.0.0.0/0" else f"-s {each}"
        yield f"{source}{told(f'{names.title} loadbalancer IP')} -j {names.external}".strip()


def _translated(port: VirtualPort, names: Names) -> Iterator[tuple[Chain, str]]:
    if port.internal:
        chain = names.local if port.is_internal_local else names.cluster
        yield SERVICES, f"{_to(port, port.cluster_ip, _comment(f'{names.title} cluster IP'))} -j {chain}"
    if not names.has_external:
        return
    for each in port.external_ips:
        yield SERVICES, f"{_to(port, each, _comment(f'{names.title} external IP'))} -j {names.external}"
    for each in port.load_balancer_ips:
        chain = names.firewall if names.has_firewall else names.external
        yield SERVICES, f"{_to(port, each, _comment(f'{names.title} loadbalancer IP'))} -j {chain}"
    if port.node_port:
        yield NODE_PORTS, f"{_to_node_port(port, _comment(names.title))} -j {names.external}"


def _refused(port: VirtualPort, names: Names) -> Iterator[tuple[Chain, str]]:
    if port.internal_refusal:
        told, verdict = _refusal(port, names, port.internal_refusal)
        yield REFUSALS, f"{_to(port, port.cluster_ip, told)} -j {verdict}"
    if port.external_refusal:
        told, verdict = _refusal(port, names, port.external_refusal)
        for each in port.public_ips:
            yield EXTERNAL_REFUSALS, f"{_to(port, each, told)} -j {verdict}"
        if port.node_port:
            is_here = f"{told} -m addrtype --dst-type LOCAL"
            yield EXTERNAL_REFUSALS, f"{_to_node_port(port, is_here)} -j {verdict}"
    if names.has_firewall:
        told = _comment(f"{names.title} traffic not accepted by {names.firewall}")
        for each in port.load_balancer_ips:
            yield FIREWALL, f"{_to(port, each, told)} -j DROP"


def _refusal(port: VirtualPort, names: Names, refusal: Refusal) -> tuple[str, str]:
    """The comment and the verdict."""
    if refusal == "drop":
        return _comment(f"{names.title} has no local endpoints"), "DROP"
    how = "tcp-reset" if port.protocol == "tcp" else "icmp-port-unreachable"
    return _comment(f"{names.title} has no endpoints"), f"REJECT --reject-with {how}"


def _to(port: VirtualPort, address: IPv4Address, told: str) -> str:
    return f"-d {address}/32 -p {port.protocol}{told} -m {port.protocol} --dport {port.port}"


def _to_node_port(port: VirtualPort, told: str) -> str:
    return f"-p {port.protocol}{told} -m {port.protocol} --dport {port.node_port}"


def _arrow(names: Names, endpoint: Endpoint) -> str:
    return f"{names.title} -> {endpoint.address}:{endpoint.port}"


def _list(name: str) -> str:
    return f"--name {name} --mask 255.255.255.255 --rsource"


def _probability(count: int) -> str:
    """One in `count`, as it is kept and printed."""
    return f"{round(_HALF / count) / _HALF:.11f}"


def _comment(text: str) -> str:
    return f' -m comment --comment "{text}"'


def _untold(_: str) -> str:
    return ""


def _hashed(name: str) -> str:
    return b32encode(sha256(name.encode()).digest()[:10]).decode()
