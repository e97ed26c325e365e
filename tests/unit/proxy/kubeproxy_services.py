"""The Services of kube-proxy's own tests (TestOverallNFTablesRules, TestOverallIPTablesRules), as virtual ports."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from testbed.api.objects import Key
from testbed.proxy.virtualport import Endpoint, Here, VirtualPort

HERE = Here(
    node="testhost",
    address=IPv4Address("192.168.0.2"),
    pod_cidr=IPv4Network("10.180.0.0/28"),
    cluster_cidr=IPv4Network("10.0.0.0/8"),
    service_cidr=IPv4Network("172.30.0.0/16"),
)


def svc(at: int, *endpoints: int, **more: Any) -> VirtualPort:
    """nsN/svcN:p80, at 172.30.0.40 + N, whose endpoints are the pods 10.180.0.…."""
    pods = tuple(Endpoint(IPv4Address(f"10.180.0.{each}"), 80) for each in endpoints)
    port = VirtualPort(
        service=Key(f"ns{at}", f"svc{at}"),
        name="p80",
        protocol="tcp",
        cluster_ip=IPv4Address(f"172.30.0.{40 + at}"),
        port=80,
        cluster=pods,
        has_endpoints=bool(pods),
        serving=frozenset(pods),
    )
    return replace(port, **more)


CLUSTER_IP = svc(1, 1)
LOCAL_POLICY = svc(
    2, 18, node_port=3001, is_external_local=True,
    external_ips=(IPv4Address("192.168.99.22"),), load_balancer_ips=(IPv4Address("1.2.3.4"),),
)  # fmt: skip
TWO_ENDPOINTS = svc(4, 4, 5, external_ips=(IPv4Address("192.168.99.33"),))
GUARDED = svc(
    5, 3, node_port=3002, load_balancer_ips=(IPv4Address("5.6.7.8"),), affinity_s=10800,
    source_ranges=(IPv4Network("203.0.113.0/25"), IPv4Network("192.168.0.0/24")),
)  # fmt: skip
NO_ENDPOINTS = svc(6, node_port=3006)
