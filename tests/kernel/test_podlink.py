"""Pods on a node's bridge."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from testbed.kernel.fake import FakeLinks
from testbed.kernel.links import Hop, Links
from testbed.network import podlink
from testbed.network.sysctls import ensure_sysctls
from tests.kernel.lab import Lab

CIDR = IPv4Network("10.244.1.0/24")
GATEWAY = IPv4Address("10.244.1.1")


@pytest.fixture(params=["fake", "real"])
def node_and_pod(request: pytest.FixtureRequest) -> tuple[Links, Path]:
    if request.param == "fake":
        return FakeLinks(Path("node")), Path("pod")
    lab = request.getfixturevalue("lab")
    return lab.links("tb-c-node"), lab.place("tb-c-pod")


def attach(node: Links, pod: Path, at: int = 2) -> None:
    address = IPv4Address(f"10.244.1.{at}")
    podlink.attach(node, pod, device=f"veth{at}", address=address, gateway=GATEWAY, mtu=1450)


def test_a_pod_has_a_host_address_and_a_default_route_through_the_bridge(node_and_pod: tuple[Links, Path]) -> None:
    node, netns = node_and_pod
    podlink.ensure_bridge(node, CIDR, 1450)
    attach(node, netns)
    attach(node, netns)
    pod = node.enter(netns)
    assert pod.addresses("eth0") == {IPv4Interface("10.244.1.2/32")}
    assert pod.routes("eth0") == {IPv4Network("0.0.0.0/0"): Hop(via=GATEWAY, onlink=True)}
    assert {link.name: link.mtu for link in pod.links()}["eth0"] == 1450
    assert {link.name: link.master for link in node.links()}["veth2"] == podlink.BRIDGE
    pod.close()


def test_a_pod_is_detached_and_again_is_fine(node_and_pod: tuple[Links, Path]) -> None:
    node, netns = node_and_pod
    podlink.ensure_bridge(node, CIDR, 1450)
    attach(node, netns)
    podlink.detach(node, "veth2")
    podlink.detach(node, "veth2")
    assert {link.name for link in node.links()} == {"lo", podlink.BRIDGE}


def test_pods_of_one_node_reach_each_other_through_the_nodes_ip_stack(lab: Lab) -> None:
    node = lab.links("tb-c-node")
    ensure_sysctls(lab.place("tb-c-node"))
    podlink.ensure_bridge(node, CIDR, 1450)
    for at in (2, 3):
        attach(node, lab.place(f"tb-c-pod-{at}"), at)
    with lab.serve("tb-c-pod-3", "tcp", 80, "three"):
        assert lab.ask("tb-c-pod-2", "tcp", "10.244.1.3", 80) == "three 10.244.1.2"
