"""The wires of a host, over a kernel in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from testbed.agent.wiring import BALANCED, CONTROL_PLANE_DEVICE, RULES, Kernel, Wiring
from testbed.errors import NotFound
from testbed.kernel.fake import FakeLinks, FakeNft
from testbed.kernel.links import Hop, Links
from testbed.topology.spec import ClusterSpec
from tests.unit.agent.specs import cluster, node

EVERYWHERE = IPv4Network("0.0.0.0/0")


class Host:
    """A machine in memory with a place for each name, as files, since a namespace is known by its inode."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.directory = directory
        self.switch = FakeLinks()
        self.nft = FakeNft()
        for name in names:
            self.add(name)
        self.wiring = Wiring("here", self.place, Kernel(self.links, lambda: self.nft, _nothing, _nothing))

    def add(self, name: str) -> None:
        """A new namespace of that name."""
        (self.directory / name).unlink(missing_ok=True)
        (self.directory / name).touch()

    def place(self, name: str) -> Path | None:
        path = self.directory / name
        return path if path.exists() else None

    def links(self, netns: Path | None) -> Links:
        return self.switch if netns is None else self.switch.enter(netns)

    def at(self, name: str) -> Links:
        return self.switch.enter(self.directory / name)

    @property
    def ports(self) -> dict[str, str]:
        return {link.name: link.master for link in self.switch.links() if link.name.startswith("n-")}


def _nothing(*_: object) -> None:
    pass


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, "control-plane", "a", "b")


def test_every_place_is_linked_to_the_switch(host: Host) -> None:
    assert host.wiring.sync(cluster()) == {"a", "b"}
    assert sorted(host.ports.values()) == ["underlay"] * 3
    assert host.at("a").addresses("eth0") == {IPv4Interface("198.18.0.11/16")}
    assert host.at("control-plane").addresses(CONTROL_PLANE_DEVICE) == {IPv4Interface("198.18.0.2/16")}
    assert host.at("b").routes("eth0") == {EVERYWHERE: Hop(via=IPv4Address("198.18.0.1"))}


def test_the_control_plane_reaches_pods_through_their_nodes(host: Host) -> None:
    host.wiring.sync(cluster())
    assert host.at("control-plane").routes(CONTROL_PLANE_DEVICE) == {
        EVERYWHERE: Hop(via=IPv4Address("198.18.0.1")),
        IPv4Network("10.244.1.0/24"): Hop(via=IPv4Address("198.18.0.11")),
        IPv4Network("10.244.2.0/24"): Hop(via=IPv4Address("198.18.0.12")),
    }


def test_the_switch_is_the_gateway_of_both_its_networks(host: Host) -> None:
    host.wiring.sync(cluster())
    assert host.switch.addresses("underlay") == {IPv4Interface("198.18.0.1/16")}
    assert host.switch.addresses("outside") == {IPv4Interface("203.0.113.1/24")}
    assert "policy drop" in RULES


def test_a_worker_has_a_bridge_for_its_pods_and_an_external_node_has_none(host: Host) -> None:
    host.add("client")
    host.wiring.sync(cluster(node("a", 1), node("client", 9, role="external")))
    assert host.at("a").addresses("cni0") == {IPv4Interface("10.244.1.1/24")}
    assert "cni0" not in {link.name for link in host.at("client").links()}
    assert host.at("client").routes("eth0") == {EVERYWHERE: Hop(via=IPv4Address("203.0.113.1"))}
    assert "outside" in host.ports.values()


def test_a_second_sync_changes_nothing(host: Host) -> None:
    host.wiring.sync(cluster())
    before = host.switch.links()
    host.wiring.sync(cluster())
    assert host.switch.links() == before


def test_a_node_without_a_holder_is_wired_when_it_has_one(host: Host) -> None:
    (host.directory / "b").unlink()
    assert host.wiring.sync(cluster()) == {"a"}
    host.add("b")
    assert host.wiring.sync(cluster()) == {"a", "b"}


def test_a_node_that_is_no_more_loses_its_port(host: Host) -> None:
    host.wiring.sync(cluster())
    host.wiring.sync(cluster(node("a", 1)))
    assert len(host.ports) == 2
    with pytest.raises(NotFound, match="node b is not wired"):
        host.wiring.links("b")


def test_a_holder_that_came_back_in_another_namespace_is_noticed(host: Host) -> None:
    host.wiring.sync(cluster())
    before = host.wiring.places(cluster())
    keep = (host.directory / "a").open()  # keeps its inode from being given to the new one
    host.add("a")
    keep.close()
    assert [place for place, inode in host.wiring.places(cluster()).items() if before[place] != inode] == ["a"]


def test_a_holder_that_ends_while_it_is_looked_at_has_no_namespace(host: Host) -> None:
    kernel = Kernel(host.links, lambda: host.nft, _nothing, _nothing)
    wiring = Wiring("here", lambda name: host.directory / name, kernel)
    (host.directory / "a").unlink()
    assert wiring.places(cluster()).keys() == {"control-plane", "b"}


@pytest.mark.parametrize("change", [lambda spec: replace(spec, underlay=replace(spec.underlay, mtu=9000))])
def test_a_changed_mtu_reaches_every_device(host: Host, change: Callable[[ClusterSpec], ClusterSpec]) -> None:
    host.wiring.sync(cluster())
    host.wiring.sync(change(cluster()))
    assert {link.mtu for link in host.switch.links() if link.name != "lo"} == {9000}


def test_addresses_of_load_balancers_lead_to_nodes_and_the_rest_of_their_network_nowhere(host: Host) -> None:
    host.wiring.sync(cluster())
    network, hop = IPv4Network("192.0.2.0/24"), Hop(IPv4Address("198.18.0.11"), (IPv4Address("198.18.0.12"),))
    host.wiring.balance(network, {IPv4Network("192.0.2.7/32"): hop})
    host.wiring.sync(cluster())
    assert host.switch.routes("underlay", protocol=BALANCED) == {IPv4Network("192.0.2.7/32"): hop}
    assert host.switch.blackholes(protocol=BALANCED) == {network}
    host.wiring.balance(None, {})
    assert host.switch.routes("underlay", protocol=BALANCED) == {}
    assert host.switch.blackholes(protocol=BALANCED) == set()


def test_everybody_knows_everybody_on_the_same_network_from_the_start(host: Host) -> None:
    host.add("client")
    spec = cluster(node("a", 1), node("b", 2), node("client", 9, role="external"))
    host.wiring.sync(spec)
    switch, control_plane = IPv4Address("198.18.0.1"), IPv4Address("198.18.0.2")
    a, b, client = (each.address.ip for each in spec.nodes)
    assert host.at("a").neighbours("eth0").keys() == {switch, control_plane, b}
    assert host.at("a").neighbours("eth0")[b] == spec.nodes[1].mac
    assert host.at("client").neighbours("eth0").keys() == {IPv4Address("203.0.113.1")}
    assert host.switch.neighbours("underlay").keys() == {control_plane, a, b}
    assert host.switch.neighbours("outside") == {client: spec.nodes[2].mac}
    [underlay] = [link for link in host.switch.links() if link.name == "underlay"]
    assert host.at("b").neighbours("eth0")[switch] == underlay.mac
    host.wiring.sync(cluster(node("a", 1)))
    assert host.at("a").neighbours("eth0").keys() == {switch, control_plane}
