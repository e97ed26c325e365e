"""What the spec of a Service asks for: the questions on which defaults, allocation and validation all depend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Fields = Mapping[str, Any]

HEADLESS = "None"
TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")


def has_cluster_ip(fields: Fields) -> bool:
    """Whether the Service has a clusterIP, if only `None`."""
    return fields.get("type") != "ExternalName"


def is_headless(fields: Fields) -> bool:
    """Whether the Service is only a name for its endpoints."""
    return has_cluster_ip(fields) and fields.get("clusterIP") == HEADLESS


def is_balanced(fields: Fields) -> bool:
    """Whether the Service has a load balancer in front of it."""
    return fields.get("type") == "LoadBalancer"


def has_node_ports(fields: Fields) -> bool:
    """Whether the Service may have node ports."""
    return fields.get("type") in {"NodePort", "LoadBalancer"}


def allocates_node_ports(fields: Fields) -> bool:
    """Whether every port of the Service gets a node port; otherwise only those that ask for one."""
    return has_node_ports(fields) and bool(fields.get("allocateLoadBalancerNodePorts", True))


def is_external(fields: Fields) -> bool:
    """Whether the Service is reached from outside the cluster."""
    return has_node_ports(fields) or (fields.get("type") == "ClusterIP" and bool(fields.get("externalIPs")))


def needs_health_check(fields: Fields) -> bool:
    """Whether load balancers must ask each node if it has endpoints."""
    return is_balanced(fields) and fields.get("externalTrafficPolicy") == "Local"


def node_ports_of(fields: Fields) -> list[int]:
    """The node ports of the Service's ports, some perhaps twice."""
    return [port["nodePort"] for port in fields.get("ports", []) if port.get("nodePort")]
