"""A small cluster and its pods, for tests of the agent."""

from __future__ import annotations

import uuid
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from testbed.api.objects import Object
from testbed.topology.spec import ClusterSpec, DnsSpec, HostSpec, NetworkSpec, NodeSpec, ServicesSpec, UnderlaySpec


def node(name: str, number: int, *, role: str = "worker", host: str = "here") -> NodeSpec:
    """The n-th node."""
    is_worker = role == "worker"
    return NodeSpec(
        name=name,
        host=host,
        role=role,
        labels={"zone": "z1"},
        address=IPv4Interface(f"198.18.0.{10 + number}/16" if is_worker else f"203.0.113.{10 + number}/24"),
        mac=f"02:00:00:00:00:{number:02x}",
        pod_cidr=IPv4Network(f"10.244.{number}.0/24") if is_worker else None,
        vtep_mac=f"02:00:00:00:01:{number:02x}" if is_worker else "",
    )


def cluster(*nodes: NodeSpec, images: dict[str, str] | None = None) -> ClusterSpec:
    """A cluster of one host with these nodes (default: a and b)."""
    return ClusterSpec(
        name="tb-d",
        runtime="netns",
        hosts=(HostSpec("here", "", "", IPv4Address("198.18.0.1")),),
        nodes=nodes or (node("a", 1), node("b", 2)),
        underlay=UnderlaySpec(
            cidr=IPv4Network("198.18.0.0/16"),
            gateway=IPv4Address("198.18.0.1"),
            control_plane=IPv4Address("198.18.0.2"),
            mtu=1500,
            segmentation="offload",
            uplink=False,
            outside_cidr=IPv4Network("203.0.113.0/24"),
            outside_gateway=IPv4Address("203.0.113.1"),
        ),
        network=NetworkSpec("vxlan", IPv4Network("10.244.0.0/16"), 1450, 1, 8472),
        services=ServicesSpec(
            "nftables", IPv4Network("10.96.0.0/16"), IPv4Address("10.96.0.1"), IPv4Address("10.96.0.10"), None
        ),
        dns=DnsSpec("cluster.local"),
        images=images or {},
    )


def pod(name: str = "web", *, on: str = "a", container: dict[str, Any] | None = None, **fields: Any) -> Object:
    """A pod bound to a node, with one container and these fields of its spec."""
    first = {"name": "main", "image": "testbed/web", **(container or {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": str(uuid.uuid4()), "labels": {"app": "web"}},
        "spec": {"nodeName": on, "containers": [first], **fields},
    }
