"""What the pod network writes into a node, over devices in memory."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from testbed.api.objects import Object
from testbed.kernel.fake import FakeLinks
from testbed.kernel.links import Hop, Peer
from testbed.network import BACKENDS, masquerade, podlink
from testbed.network.backend import PEER_ROUTES
from testbed.network.nodenet import NodeNet, parse_node, peers_of
from testbed.topology.spec import NetworkSpec


def node(at: int, backend: str = "vxlan") -> NodeNet:
    cidr = IPv4Network(f"10.244.{at}.0/24")
    return NodeNet(f"n{at}", IPv4Address(f"198.18.0.{at}"), cidr, f"02:00:00:00:00:0{at}", backend)


def network(backend: str) -> NetworkSpec:
    return NetworkSpec(backend, IPv4Network("10.244.0.0/16"), pod_mtu=1450, vni=1, port=8472)


@pytest.fixture
def links() -> FakeLinks:
    links = FakeLinks(Path("n1"))
    links.ensure_veth("eth0", Peer("n-1", Path("switch")), mtu=1500)
    return links


def test_vxlan_costs_one_neighbour_one_forwarding_entry_and_one_route_for_each_peer(links: FakeLinks) -> None:
    BACKENDS["vxlan"](links, node(1), network("vxlan")).sync([node(2), node(3)])
    assert links.addresses("flannel.1") == {IPv4Interface("10.244.1.0/32")}
    assert links.neighbours("flannel.1") == {
        IPv4Address("10.244.2.0"): "02:00:00:00:00:02",
        IPv4Address("10.244.3.0"): "02:00:00:00:00:03",
    }
    assert links.fdb("flannel.1") == {
        "02:00:00:00:00:02": IPv4Address("198.18.0.2"),
        "02:00:00:00:00:03": IPv4Address("198.18.0.3"),
    }
    assert links.routes("flannel.1") == {
        IPv4Network("10.244.2.0/24"): Hop(via=IPv4Address("10.244.2.0"), onlink=True),
        IPv4Network("10.244.3.0/24"): Hop(via=IPv4Address("10.244.3.0"), onlink=True),
    }
    assert {link.name: link.mtu for link in links.links()}["flannel.1"] == 1450


def test_host_gw_costs_one_route_for_each_peer_beside_those_of_others(links: FakeLinks) -> None:
    default = {IPv4Network("0.0.0.0/0"): Hop(via=IPv4Address("198.18.0.1"))}
    links.set_routes("eth0", default)
    backend = BACKENDS["host-gw"](links, node(1), network("host-gw"))
    backend.sync([node(2)])
    assert links.routes("eth0", protocol=PEER_ROUTES) == {
        IPv4Network("10.244.2.0/24"): Hop(via=IPv4Address("198.18.0.2"))
    }
    backend.teardown()
    assert links.routes("eth0", protocol=PEER_ROUTES) == {}
    assert links.routes("eth0") == default


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_a_peer_that_left_is_forgotten(links: FakeLinks, backend: str) -> None:
    made = BACKENDS[backend](links, node(1), network(backend))
    made.sync([node(2), node(3)])
    made.sync([node(3)])
    device, protocol = ("flannel.1", 4) if backend == "vxlan" else ("eth0", PEER_ROUTES)
    assert list(links.routes(device, protocol=protocol)) == [IPv4Network("10.244.3.0/24")]


def test_the_bridge_has_a_mac_that_never_changes(links: FakeLinks) -> None:
    podlink.ensure_bridge(links, IPv4Network("10.244.1.0/24"), 1450)
    assert {link.name: link.mac for link in links.links()}["cni0"] == "0a:58:0a:f4:01:01"


@pytest.mark.parametrize(
    ("changes", "is_there"),
    [
        ({}, True),
        ({"labels": {"testbed/role": "external"}}, False),
        ({"podCIDR": None}, False),
        ({"annotations": {}}, False),
    ],
    ids=["a worker", "a node outside the cluster", "one without a pod CIDR", "one that has not said where it is"],
)
def test_nodes_are_read_from_what_they_say(changes: dict[str, object], is_there: bool) -> None:
    found = parse_node(node_object(**changes))
    assert found == (node(1) if is_there else None)


def node_object(**changes: object) -> Object:
    annotations = {
        "testbed/underlay-address": "198.18.0.1",
        "testbed/vtep-mac": "02:00:00:00:00:01",
        "testbed/backend": "vxlan",
    }
    return {
        "metadata": {
            "name": "n1",
            "labels": changes.get("labels", {"testbed/role": "worker"}),
            "annotations": changes.get("annotations", annotations),
        },
        "spec": {"podCIDR": changes.get("podCIDR", "10.244.1.0/24")},
    }


def test_peers_are_all_others_in_a_fixed_order() -> None:
    assert [peer.name for peer in peers_of("n2", [node(3), node(2), node(1)])] == ["n1", "n3"]


def test_masquerading_never_touches_what_stays_in_the_pod_network() -> None:
    rules = masquerade.render(IPv4Network("10.244.0.0/16"), "flannel.1").splitlines()
    assert [line.strip() for line in rules if "masquerade fully-random" in line] == [
        "ip saddr 10.244.0.0/16 ip daddr != { 10.244.0.0/16, 224.0.0.0/4 } masquerade fully-random",
        'oifname "flannel.1" ip saddr != 10.244.0.0/16 masquerade fully-random',
    ]
    assert "oifname" not in masquerade.render(IPv4Network("10.244.0.0/16"), "")
