"""Why a topology cannot be built: what this version does not do yet, names that clash, networks that are too small.

Every check yields its mistakes with their place in the file; none of them stops at the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from itertools import combinations
from typing import TYPE_CHECKING

from testbed.api.wellknown import HEALTH_PORT, METRICS_PORT, VXLAN_PORT
from testbed.topology.source import Loc, Mistake
from testbed.topology.spec import CONTROL_PLANE, SWITCH, ClusterSpec

if TYPE_CHECKING:
    from testbed.topology.schema import Entry, TopologySpec

OUTSIDE = IPv4Network("203.0.113.0/24")
"""Where external nodes live: TEST-NET-3 (RFC 5737)."""
OVERHEAD = {"vxlan": 50, "host-gw": 0}
"""The backends that exist, and the bytes each adds to a packet: VXLAN is IPv4 20 + UDP 8 + VXLAN 8 + Ethernet 14."""
NODE_PREFIX = 24
"""The length of a node's pod CIDR, as in kubeadm: 253 pods beside the bridge's own address."""
FIRST_NODE = 10
"""The host number of the first node in its network; those below are for the switch and the control plane."""
DNS_HOST = 10
"""The host number of the cluster's DNS in the network of Services, as kubeadm has it."""
LEAST_MTU = 576
"""What every IPv4 host must take (RFC 1122)."""

_NODES_OWN = {
    METRICS_PORT: "shows what its proxy does",
    HEALTH_PORT: "says whether its proxy is well",
    VXLAN_PORT: "receives what is tunnelled",
}
_TAKEN = {
    OUTSIDE: "where external nodes live",
    IPv4Network("0.0.0.0/8"): "which has no hosts (RFC 1122)",
    IPv4Network("127.0.0.0/8"): "the loopback network",
    IPv4Network("169.254.0.0/16"): "which is link-local",
    IPv4Network("224.0.0.0/3"): "which is multicast and reserved",
}


def mistakes_of(spec: TopologySpec, entries: Sequence[Entry]) -> list[Mistake]:
    """Everything that stands in the way; sizes are only looked at once families and names are right."""
    first = [*_not_yet(spec), *_names(entries, spec), *_families(spec)]
    return first or [*_overlaps(spec), *_sizes(spec, entries), *_mtu(spec), *_node_ports(spec), *_forward(spec)]


def fixed_mistakes(planned: ClusterSpec, running: ClusterSpec) -> list[Mistake]:
    """What cannot change while a cluster runs: what its certificates, nodes, pods and Services are built on."""
    fixed: tuple[tuple[Loc, object, object], ...] = (
        (("underlay", "cidr"), planned.underlay.cidr, running.underlay.cidr),
        (("network", "podCIDR"), planned.network.pod_cidr, running.network.pod_cidr),
        (("services", "cidr"), planned.services.cidr, running.services.cidr),
        (("services", "nodePortRange"), _range(planned.services.node_ports), _range(running.services.node_ports)),
        (("dns", "domain"), planned.dns.domain, running.dns.domain),
    )
    advice = f"that cannot change in place: run `testbed down {running.name}` first"
    return [
        Mistake(("spec", *loc), f"is {wanted}, and the running cluster has {has}; {advice}")
        for loc, wanted, has in fixed
        if wanted != has
    ]


def ipv4(networks: tuple[IPv4Network | IPv6Network, ...]) -> IPv4Network:
    """The one IPv4 network, after `mistakes_of` found nothing else there."""
    network = networks[0]
    assert isinstance(network, IPv4Network), "checked by _families"
    return network


def _not_yet(spec: TopologySpec) -> Iterator[Mistake]:
    """What the file may say, and this version cannot do."""
    for wanted, loc, sentence in (
        (len(spec.hosts) > 1, ("hosts",), "several hosts are not available yet; name one, or leave hosts out"),
        (spec.underlay.segmentation == "wire", ("underlay", "segmentation"), "wire is not available yet; use offload"),
        (spec.underlay.uplink, ("underlay", "uplink"), "an uplink is not available yet; leave uplink out"),
        (
            spec.network.backend not in OVERHEAD,
            ("network", "backend"),
            f"{spec.network.backend} is not available yet; use {' or '.join(OVERHEAD)}",
        ),
    ):
        if wanted:
            yield Mistake(("spec", *loc), sentence)
    for index, host in enumerate(spec.hosts):
        if host.docker:
            yield Mistake(("spec", "hosts", index, "docker"), "a remote engine is not available yet; leave docker out")
    for index, node in enumerate(spec.nodes):
        if node.link:
            yield Mistake(("spec", "nodes", index, "link"), "shaped links are not available yet; leave link out")
        if node.proxy and node.role == "external":
            sentence = "is set on an external node, which is outside the cluster and serves no Services; leave it out"
            yield Mistake(("spec", "nodes", index, "proxy"), sentence)


def _names(entries: Sequence[Entry], spec: TopologySpec) -> Iterator[Mistake]:
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            yield Mistake((*entry.loc, "name"), f"a second node is called {entry.name}; give each its own name")
        if entry.name in (SWITCH, CONTROL_PLANE):
            yield Mistake((*entry.loc, "name"), f"{entry.name} is the name of a part of every cluster; choose another")
        seen.add(entry.name)
    hosts = spec.host_names()
    for index, node in enumerate(spec.nodes):
        if node.host and node.host not in hosts:
            sentence = f"there is no host {node.host} in spec.hosts; there is {', '.join(hosts)}"
            yield Mistake(("spec", "nodes", index, "host"), sentence)
    if len(set(hosts)) < len(hosts):
        yield Mistake(("spec", "hosts"), "two hosts have the same name; give each its own name")
    if not any(entry.is_worker for entry in entries):
        yield Mistake(("spec", "nodes"), "none of the nodes is a worker; a cluster needs at least one")


def _cidrs(spec: TopologySpec) -> dict[Loc, tuple[IPv4Network | IPv6Network, ...]]:
    given = {
        ("spec", "underlay", "cidr"): spec.underlay.cidr,
        ("spec", "network", "podCIDR"): spec.network.pod_cidr,
        ("spec", "services", "cidr"): spec.services.cidr,
        ("spec", "services", "loadBalancerCIDR"): spec.services.load_balancer_cidr,
    }
    return {loc: networks for loc, networks in given.items() if networks}


def _families(spec: TopologySpec) -> Iterator[Mistake]:
    for index, network in enumerate(spec.services.node_port_addresses):
        if isinstance(network, IPv6Network):
            sentence = "IPv6 is not available yet; give an IPv4 network"
            yield Mistake(("spec", "services", "nodePortAddresses", index), sentence)
    for loc, networks in _cidrs(spec).items():
        if any(isinstance(network, IPv6Network) for network in networks):
            yield Mistake(loc, "IPv6 is not available yet; give one IPv4 network")
        elif len(networks) > 1:
            yield Mistake(loc, "holds two networks of one address family; give one")


def _overlaps(spec: TopologySpec) -> Iterator[Mistake]:
    networks = {loc: ipv4(given) for loc, given in _cidrs(spec).items()}
    for first, second in combinations(networks, 2):
        if networks[first].overlaps(networks[second]):
            sentence = f"{networks[second]} overlaps {networks[first]} of {'.'.join(map(str, first))}"
            yield Mistake(second, f"{sentence}; nodes, pods and services need networks of their own")
    for loc, network in networks.items():
        for taken, what in _TAKEN.items():
            if network.overlaps(taken):
                yield Mistake(loc, f"{network} overlaps {taken}, {what}; choose another, such as a part of 10.0.0.0/8")


def _sizes(spec: TopologySpec, entries: Sequence[Entry]) -> Iterator[Mistake]:
    workers = sum(entry.is_worker for entry in entries)
    pods, underlay, services = ipv4(spec.network.pod_cidr), ipv4(spec.underlay.cidr), ipv4(spec.services.cidr)
    nets = 2 ** (NODE_PREFIX - pods.prefixlen) if pods.prefixlen <= NODE_PREFIX else 0
    for loc, network, room, wanted, what in (
        (("network", "podCIDR"), pods, nets, workers, f"workers with a /{NODE_PREFIX} each"),
        (("underlay", "cidr"), underlay, _room(underlay), workers, "workers"),
        (("nodes",), OUTSIDE, _room(OUTSIDE), len(entries) - workers, "external nodes"),
    ):
        if wanted > room:
            fix = "have fewer" if network == OUTSIDE else "have fewer, or take a larger network"
            yield Mistake(("spec", *loc), f"{network} has room for {room} {what}, and there are {wanted}; {fix}")
    if services.prefixlen > 28:
        yield Mistake(("spec", "services", "cidr"), f"{services} has no room for Services; take a /28 or larger")


def _room(network: IPv4Network) -> int:
    return max(network.num_addresses - FIRST_NODE - 1, 0)


def _node_ports(spec: TopologySpec) -> Iterator[Mistake]:
    first, last = spec.services.node_port_range
    for port, what in _NODES_OWN.items():
        if first <= port <= last:
            sentence = f"{_range((first, last))} holds {port}, where every node {what}"
            yield Mistake(("spec", "services", "nodePortRange"), f"{sentence}; 30000-32767 is usual")
    underlay, pods = ipv4(spec.underlay.cidr), ipv4(spec.network.pod_cidr)
    for index, given in enumerate(spec.services.node_port_addresses):
        network, loc = ipv4((given,)), ("spec", "services", "nodePortAddresses", index)
        if not (network.overlaps(underlay) or network.overlaps(pods)):
            sentence = f"no node has an address in {network}: they have some in {underlay} (underlay) and {pods} (pods)"
            yield Mistake(loc, f"{sentence}; name a part of these")


def _range(ports: tuple[int, int]) -> str:
    return "{}-{}".format(*ports)


def _forward(spec: TopologySpec) -> Iterator[Mistake]:
    """Of the servers for other names: whether DNS is served at all, and whether a query can get to them."""
    loc = ("spec", "dns", "forward")
    if spec.dns.forward and spec.dns.server == "none":
        yield Mistake(loc, "is set, and dns.server is none, so that nobody would forward; leave one of them out")
    own = ipv4(spec.services.cidr).network_address + DNS_HOST
    reached = {"underlay": ipv4(spec.underlay.cidr), "pods": ipv4(spec.network.pod_cidr), "outside": OUTSIDE}
    reached["services"] = ipv4(spec.services.cidr)
    for index, server in enumerate(spec.dns.forward):
        if server == own:
            yield Mistake((*loc, index), f"{server} is the cluster's own DNS, which would ask itself; name another")
        elif not any(server in network for network in reached.values()):
            networks = ", ".join(f"{network} ({name})" for name, network in reached.items())
            sentence = f"{server} cannot be reached: without an uplink there is nothing but {networks}"
            yield Mistake((*loc, index), f"{sentence}; name a server there, or leave it out")


def _mtu(spec: TopologySpec) -> Iterator[Mistake]:
    overhead, underlay, wanted = OVERHEAD[spec.network.backend], spec.underlay.mtu, spec.network.mtu
    most = underlay - overhead
    if wanted != "auto" and wanted > most:
        sentence = f"{wanted} is too large: {spec.network.backend} adds {overhead} bytes to a packet"
        fix = f"the underlay carries {underlay}; use auto, or at most {most}"
        yield Mistake(("spec", "network", "mtu"), f"{sentence}, and {fix}")
    if wanted == "auto" and most < LEAST_MTU:
        sentence = f"{underlay} leaves {most} bytes for a pod's packet under {spec.network.backend}"
        fix = f"IPv4 wants {LEAST_MTU}; use {LEAST_MTU + overhead} or more"
        yield Mistake(("spec", "underlay", "mtu"), f"{sentence}, and {fix}")
