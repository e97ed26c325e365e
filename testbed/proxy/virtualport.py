"""What one node serves for a Service: the values that `servicemap` decides and every proxy mode renders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal, NamedTuple

from testbed.api.objects import Key


class Endpoint(NamedTuple):
    """Where a connection goes in the end."""

    address: IPv4Address
    port: int


Refusal = Literal["", "refuse", "drop"]
"""What becomes of a connection that no endpoint may take: a reset or ICMP error at once, or silence."""


@dataclass(frozen=True, slots=True)
class VirtualPort:
    """One port of one Service as one node serves it.

    Endpoints are chosen already: by condition, topology and traffic policy. The position of an endpoint is its slot,
    and stays its own for as long as it serves.
    """

    service: Key
    name: str
    """Of the port; may be empty."""
    protocol: str
    """tcp, udp or sctp."""
    cluster_ip: IPv4Address
    port: int
    node_port: int = 0
    """0: none."""
    external_ips: tuple[IPv4Address, ...] = ()
    load_balancer_ips: tuple[IPv4Address, ...] = ()
    source_ranges: tuple[IPv4Network, ...] = ()
    """Who may come in by a load balancer's address; empty: everybody."""
    affinity_s: int = 0
    """For so long after its last connection a client keeps its endpoint; 0: no affinity."""
    cluster: tuple[Endpoint, ...] = ()
    """That take new connections by traffic policy Cluster."""
    local: tuple[Endpoint, ...] = ()
    """That take new connections by traffic policy Local: of this node only."""
    is_internal_local: bool = False
    """internalTrafficPolicy: at the ClusterIP."""
    is_external_local: bool = False
    """externalTrafficPolicy: at node ports, external and load balancer addresses."""
    has_endpoints: bool = False
    """Whether any node has an endpoint for this port: without, it is refused; with, but none here, it is dropped."""
    serving: frozenset[Endpoint] = frozenset()
    """On all nodes, that may keep the flows they have: ready, or serving while they terminate."""

    @property
    def internal(self) -> tuple[Endpoint, ...]:
        """Who answers at the ClusterIP."""
        return self.local if self.is_internal_local else self.cluster

    @property
    def external(self) -> tuple[Endpoint, ...]:
        """Who answers those that come from outside the cluster."""
        return self.local if self.is_external_local else self.cluster

    @property
    def public_ips(self) -> tuple[IPv4Address, ...]:
        """Every address, beside those of the nodes, at which the port is reached from outside."""
        return self.external_ips + self.load_balancer_ips

    @property
    def internal_refusal(self) -> Refusal:
        """What becomes of a connection to the ClusterIP, where it has nobody to go to; empty where it has."""
        return "" if self.internal else self._refusal

    @property
    def external_refusal(self) -> Refusal:
        """The same for one from outside. Traffic of the cluster's own pods and nodes is not subject to Local."""
        return "" if self.external else self._refusal

    @property
    def _refusal(self) -> Refusal:
        return "drop" if self.has_endpoints else "refuse"


Ports = Mapping[Key, tuple[VirtualPort, ...]]
"""By Service. An entry that has not changed is the same object, so comparing two of these by identity is enough."""


class HealthCheck(NamedTuple):
    """The healthCheckNodePort of a Service: who asks there learns whether this node has an endpoint that is ready."""

    port: int
    local_endpoints: int


@dataclass(frozen=True)
class Here:
    """What a mode must know of the node it serves."""

    node: str
    address: IPv4Address
    """The node's primary address, on the underlay."""
    pod_cidr: IPv4Network
    """Of this node's pods."""
    cluster_cidr: IPv4Network
    """Of all pods."""
    service_cidr: IPv4Network
    zone: str = ""
    """topology.kubernetes.io/zone"""
    node_port_addresses: tuple[IPv4Network, ...] = ()
    """Where node ports are served; empty: what kube-proxy does by default in that mode."""
