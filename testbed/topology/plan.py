"""From a topology to a ClusterSpec: every static name, address, MAC and CIDR is chosen here, and nowhere else.

    underlay 198.18.0.0/16         .1 the switch, everybody's gateway · .2 the control plane · .10 … the workers
    outside  203.0.113.0/24        .1 the switch · .10 … the external nodes
    pods     10.244.0.0/16         a /24 for each worker
    services 10.96.0.0/16          .1 default/kubernetes · .10 DNS

Pure: the same topology gives the same spec. Given the spec that runs already, nodes which stay keep what they have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING, TypeVar

from testbed.api.wellknown import VXLAN_PORT
from testbed.topology.limits import (
    DNS_HOST,
    FIRST_NODE,
    NODE_PREFIX,
    OUTSIDE,
    OVERHEAD,
    fixed_mistakes,
    ipv4,
    mistakes_of,
)
from testbed.topology.source import Mistaken
from testbed.topology.spec import ClusterSpec, DnsSpec, HostSpec, NetworkSpec, NodeSpec, ServicesSpec, UnderlaySpec

if TYPE_CHECKING:
    from testbed.topology.schema import Entry, Topology, TopologySpec

VNI = 1

T = TypeVar("T")


def plan(topology: Topology, *, runtime: str, running: ClusterSpec | None = None) -> ClusterSpec:
    """The cluster that `topology` describes, on `runtime` (docker or netns: what `auto` came to).

    Raises Mistaken with every reason why it cannot be built, each with its place in the file. `running` is the spec
    of the cluster as it is now: nodes that stay keep address and pod CIDR, whatever comes or goes around them.
    """
    spec = topology.spec
    entries = spec.expanded()
    if mistakes := mistakes_of(spec, entries):
        raise Mistaken(mistakes)
    underlay = _underlay(spec)
    planned = ClusterSpec(
        name=topology.metadata.name,
        runtime=runtime,
        hosts=tuple(HostSpec(host, docker="", address="", switch=underlay.gateway) for host in spec.host_names()),
        nodes=_nodes(topology, entries, running.nodes if running else ()),
        underlay=underlay,
        network=_network(spec),
        services=_services(spec),
        dns=DnsSpec(spec.dns.domain, spec.dns.server, spec.dns.forward),
        images=dict(spec.images),
    )
    if running and (mistakes := fixed_mistakes(planned, running)):
        raise Mistaken(mistakes)
    return planned


def mac(*what: str) -> str:
    """A stable, locally administered unicast MAC (IEEE 802: second bit of the first octet set, first bit clear)."""
    octets = hashlib.sha256("/".join(what).encode()).digest()[:5]
    return ":".join(f"{octet:02x}" for octet in (0x02, *octets))


def _underlay(spec: TopologySpec) -> UnderlaySpec:
    cidr = ipv4(spec.underlay.cidr)
    return UnderlaySpec(
        cidr=cidr,
        gateway=cidr[1],
        control_plane=cidr[2],
        mtu=spec.underlay.mtu,
        segmentation=spec.underlay.segmentation,
        uplink=spec.underlay.uplink,
        outside_cidr=OUTSIDE,
        outside_gateway=OUTSIDE[1],
    )


def _network(spec: TopologySpec) -> NetworkSpec:
    wanted = spec.network.mtu
    pod_mtu = spec.underlay.mtu - OVERHEAD[spec.network.backend] if wanted == "auto" else wanted
    return NetworkSpec(spec.network.backend, ipv4(spec.network.pod_cidr), pod_mtu, VNI, VXLAN_PORT)


def _services(spec: TopologySpec) -> ServicesSpec:
    services, cidr = spec.services, ipv4(spec.services.cidr)
    return ServicesSpec(
        proxy=services.proxy,
        cidr=cidr,
        kubernetes=cidr[1],
        dns=cidr[DNS_HOST],
        load_balancer_cidr=ipv4(services.load_balancer_cidr) if services.load_balancer_cidr else None,
        node_ports=services.node_port_range,
        node_port_addresses=tuple(ipv4((network,)) for network in services.node_port_addresses),
    )


def _nodes(topology: Topology, entries: list[Entry], running: Iterable[NodeSpec]) -> tuple[NodeSpec, ...]:
    spec = topology.spec
    underlay, pods = ipv4(spec.underlay.cidr), ipv4(spec.network.pod_cidr)
    workers = [entry.name for entry in entries if entry.is_worker]
    outside = [entry.name for entry in entries if not entry.is_worker]
    had = {node.name: node.address.ip for node in running}
    addresses = {
        **_assigned(workers, {name: ip for name, ip in had.items() if ip in underlay}, _hosts_of(underlay)),
        **_assigned(outside, {name: ip for name, ip in had.items() if ip in OUTSIDE}, _hosts_of(OUTSIDE)),
    }
    had_cidr = {node.name: node.pod_cidr for node in running if node.pod_cidr and _is_part(node.pod_cidr, pods)}
    cidrs = _assigned(workers, had_cidr, pods.subnets(new_prefix=NODE_PREFIX))
    return tuple(_node(topology, entry, addresses[entry.name], cidrs.get(entry.name)) for entry in entries)


def _assigned(names: Iterable[str], had: Mapping[str, T], choices: Iterator[T]) -> dict[str, T]:
    """A choice for each name: the one it had, otherwise the first that nobody has."""
    kept = {name: had[name] for name in names if name in had}
    taken = set(kept.values())
    free = (choice for choice in choices if choice not in taken)
    return {name: kept[name] if name in kept else next(free) for name in names}


def _hosts_of(network: IPv4Network) -> Iterator[IPv4Address]:
    return (network[number] for number in range(FIRST_NODE, network.num_addresses - 1))


def _is_part(cidr: IPv4Network, pods: IPv4Network) -> bool:
    return cidr.prefixlen == NODE_PREFIX and cidr.subnet_of(pods)


def _node(topology: Topology, entry: Entry, address: IPv4Address, pod_cidr: IPv4Network | None) -> NodeSpec:
    spec, cluster = topology.spec, topology.metadata.name
    network = ipv4(spec.underlay.cidr) if entry.is_worker else OUTSIDE
    return NodeSpec(
        name=entry.name,
        host=entry.node.host or spec.host_names()[0],
        role=entry.node.role,
        labels=dict(entry.node.labels),
        address=IPv4Interface(f"{address}/{network.prefixlen}"),
        mac=mac(cluster, entry.name, "eth0"),
        pod_cidr=pod_cidr,
        vtep_mac=mac(cluster, entry.name, "vtep") if entry.is_worker else "",
        proxy=entry.node.proxy or spec.services.proxy,
    )
