"""What a topology comes to: every static name and address of a cluster, as plain values.

A ClusterSpec is made by `topology.plan` and by nothing else. It travels as JSON, in the ConfigMap kube-system/testbed
and in the bootstrap directory of every daemon, so it imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from testbed.errors import BadInput

CONTROL_PLANE = "control-plane"
"""The name of the control plane's own place on the underlay, beside the node names."""
SWITCH = "switch"


@dataclass(frozen=True)
class HostSpec:
    """A machine. `docker` is its engine's URL, empty for this machine's own."""

    name: str
    docker: str
    address: str
    switch: IPv4Address
    """The underlay address of this host's switch, at which its agent listens."""


@dataclass(frozen=True)
class LinkSpec:
    """What the link of a node to the switch is like; zero is: as the kernel gives it."""

    rate_bps: int = 0
    delay_us: int = 0
    loss: float = 0.0


@dataclass(frozen=True)
class NodeSpec:
    """A node: a worker of the cluster, or (`role: external`) a machine outside it."""

    name: str
    host: str
    role: str
    labels: Mapping[str, str]
    address: IPv4Interface
    """On the underlay; for an external node on the outside network, which the switch routes."""
    mac: str
    pod_cidr: IPv4Network | None
    vtep_mac: str
    link: LinkSpec = LinkSpec()
    proxy: str = "nftables"
    """The proxy's mode on this node."""

    @property
    def is_external(self) -> bool:
        """Outside the cluster: no pod network, no service rules."""
        return self.role == "external"


@dataclass(frozen=True)
class UnderlaySpec:
    """The network that nodes share, and the one outside of it; the switch is the router of both."""

    cidr: IPv4Network
    gateway: IPv4Address
    control_plane: IPv4Address
    mtu: int
    segmentation: str
    uplink: bool
    outside_cidr: IPv4Network
    outside_gateway: IPv4Address


@dataclass(frozen=True)
class NetworkSpec:
    """The pod network. `pod_mtu` is computed from the underlay's and the backend's overhead."""

    backend: str
    pod_cidr: IPv4Network
    pod_mtu: int
    vni: int
    port: int


@dataclass(frozen=True)
class ServicesSpec:
    """Services: their addresses and the proxy's mode, which a node may have differently."""

    proxy: str
    cidr: IPv4Network
    kubernetes: IPv4Address
    """ClusterIP of the Service default/kubernetes."""
    dns: IPv4Address
    load_balancer_cidr: IPv4Network | None
    """Where Services of type LoadBalancer get their addresses from; None: they stay pending."""
    node_ports: tuple[int, int] = (30000, 32767)
    """The first and the last port that may be a node port."""
    node_port_addresses: tuple[IPv4Network, ...] = ()
    """Node ports are served at the nodes' addresses in these; empty: what kube-proxy does by default in that mode."""


@dataclass(frozen=True)
class DnsSpec:
    """The cluster's DNS."""

    domain: str
    server: str = "auto"
    """knot; none; auto: knot wherever it can be run, which `up` finds out before it makes anything."""
    forward: tuple[IPv4Address, ...] = ()
    """Who is asked for names outside the cluster's domain; empty: they are refused."""

    @property
    def is_served(self) -> bool:
        """Whether the cluster has a DNS."""
        return self.server == "knot"


@dataclass(frozen=True)
class ClusterSpec:
    """Everything that is decided before anything is made."""

    name: str
    runtime: str
    """docker or netns; `auto` is resolved before planning."""
    hosts: tuple[HostSpec, ...]
    nodes: tuple[NodeSpec, ...]
    underlay: UnderlaySpec
    network: NetworkSpec
    services: ServicesSpec
    dns: DnsSpec
    images: Mapping[str, str] = field(default_factory=dict)
    """Aliases: image pattern (fnmatch) to the image used in its place."""

    def host(self, name: str) -> HostSpec:
        """The host of that name."""
        return next(host for host in self.hosts if host.name == name)

    def node(self, name: str) -> NodeSpec:
        """The node of that name; BadInput where the cluster has none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise BadInput(f"cluster {self.name} has no node {name}")

    def nodes_of(self, host: str) -> tuple[NodeSpec, ...]:
        """The nodes placed on that host."""
        return tuple(node for node in self.nodes if node.host == host)

    def to_json(self) -> dict[str, Any]:
        """A JSON document; `from_json` reads it back to an equal spec."""
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> ClusterSpec:
        """The spec that `to_json` wrote."""
        underlay, network, services = doc["underlay"], doc["network"], doc["services"]
        return cls(
            name=doc["name"],
            runtime=doc["runtime"],
            hosts=tuple(HostSpec(**{**host, "switch": IPv4Address(host["switch"])}) for host in doc["hosts"]),
            nodes=tuple(_node(node) for node in doc["nodes"]),
            underlay=UnderlaySpec(
                **{
                    **underlay,
                    "cidr": IPv4Network(underlay["cidr"]),
                    "gateway": IPv4Address(underlay["gateway"]),
                    "control_plane": IPv4Address(underlay["control_plane"]),
                    "outside_cidr": IPv4Network(underlay["outside_cidr"]),
                    "outside_gateway": IPv4Address(underlay["outside_gateway"]),
                }
            ),
            network=NetworkSpec(**{**network, "pod_cidr": IPv4Network(network["pod_cidr"])}),
            services=_services(services),
            dns=DnsSpec(**{**doc["dns"], "forward": tuple(map(IPv4Address, doc["dns"]["forward"]))}),
            images=doc["images"],
        )


def _node(doc: Mapping[str, Any]) -> NodeSpec:
    return NodeSpec(
        **{
            **doc,
            "address": IPv4Interface(doc["address"]),
            "pod_cidr": doc["pod_cidr"] and IPv4Network(doc["pod_cidr"]),
            "link": LinkSpec(**doc["link"]),
        }
    )


def _services(doc: Mapping[str, Any]) -> ServicesSpec:
    return ServicesSpec(
        proxy=doc["proxy"],
        cidr=IPv4Network(doc["cidr"]),
        kubernetes=IPv4Address(doc["kubernetes"]),
        dns=IPv4Address(doc["dns"]),
        load_balancer_cidr=doc["load_balancer_cidr"] and IPv4Network(doc["load_balancer_cidr"]),
        node_ports=(doc["node_ports"][0], doc["node_ports"][1]),
        node_port_addresses=tuple(map(IPv4Network, doc["node_port_addresses"])),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, IPv4Address | IPv4Network | IPv4Interface):
        return str(value)
    return value
