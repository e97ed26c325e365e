"""Mode ipvs over a kernel in memory: what it asks of it, and when."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from testbed.api.objects import Key
from testbed.errors import KernelError
from testbed.kernel.fake import FakeLinks, FakeNft
from testbed.kernel.fake_ipvs import FakeIpvs
from testbed.kernel.ipvs_wire import Real, RealState, Server
from testbed.proxy.ipvs import DEVICE, SYSCTLS, IpvsMode
from testbed.proxy.virtualport import Endpoint, Here, Ports, VirtualPort

ONE, TWO = Endpoint(IPv4Address("10.244.1.2"), 8080), Endpoint(IPv4Address("10.244.2.2"), 8080)
OWN, PUBLIC = IPv4Address("198.18.0.10"), IPv4Address("198.19.0.1")
HERE = Here("a", OWN, IPv4Network("10.244.1.0/24"), IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/16"))


class Node:
    """A node with an address, and the mode on it."""

    def __init__(self) -> None:
        self.nft, self.ipvs, self.links = FakeNft(), FakeIpvs(), FakeLinks(Path("node"))
        self.links.ensure_bridge("eth0", mtu=1500)
        self.links.set_addresses("eth0", [IPv4Interface("198.18.0.10/16")])
        self.mode = IpvsMode(self.nft, self.ipvs, self.links)

    def weights(self, server: Server) -> dict[Real, int]:
        """Of its real servers."""
        return {real: state.weight for real, state in self.ipvs.reals(server).items()}

    def bound(self) -> set[IPv4Address]:
        """Addresses on the device."""
        return {address.ip for address in self.links.addresses(DEVICE)}


@pytest.fixture
def node() -> Node:
    return Node()


def served(name: str, number: int, *endpoints: Endpoint, protocol: str = "tcp", **more: object) -> Ports:
    """A Service at 10.96.0.NUMBER."""
    key = Key("default", name)
    given = {"cluster": endpoints, "has_endpoints": bool(endpoints), **more}
    return {key: (VirtualPort(key, "", protocol, IPv4Address("10.96.0.0") + number, 80, **given),)}  # type: ignore[arg-type]


def server(number: int, protocol: str = "tcp") -> Server:
    return Server(IPv4Address("10.96.0.0") + number, protocol, 80)


def test_a_load_takes_over_what_is_there_and_removes_the_rest(node: Node) -> None:
    stale = Server(IPv4Address("10.96.0.9"), "udp", 53)
    node.ipvs.ensure_servers({server(1): 60, stale: 0})
    node.ipvs.ensure_reals([(server(1), Real(*ONE)), (stale, Real(*ONE))], weight=1)
    node.ipvs.connect(server(1), Real(*ONE), 3)
    node.links.ensure_dummy(DEVICE)
    node.links.ensure_addresses(DEVICE, [IPv4Interface("10.96.0.9/32")])
    node.mode.load(served("web", 1, ONE, TWO), HERE)
    assert node.ipvs.servers() == {server(1): 0}
    assert node.ipvs.reals(server(1)) == {Real(*ONE): RealState(1, active=3), Real(*TWO): RealState(1)}
    assert node.bound() == {IPv4Address("10.96.0.1")}
    assert node.ipvs.parameters == SYSCTLS
    assert not node.mode.was_edited()


def test_a_change_of_endpoints_loads_no_rules(node: Node) -> None:
    before, after = served("web", 1, ONE), served("web", 1, TWO)
    node.mode.load(before, HERE)
    loads = len(node.nft.loaded)
    assert node.mode.change(before, after, list(after))
    assert node.weights(server(1)) == {Real(*ONE): 0, Real(*TWO): 1}
    assert len(node.nft.loaded) == loads


def test_an_endpoint_is_deleted_when_its_last_connection_is_over_and_not_before(node: Node) -> None:
    before, after = served("web", 1, ONE, TWO), served("web", 1, TWO)
    node.mode.load(before, HERE)
    node.ipvs.connect(server(1), Real(*ONE), 1)
    assert node.mode.change(before, after, list(after))
    assert node.mode.change(after, after, [])
    assert node.weights(server(1)) == {Real(*ONE): 0, Real(*TWO): 1}
    node.ipvs.connect(server(1), Real(*ONE), 0)
    assert node.mode.change(after, after, [])
    assert node.weights(server(1)) == {Real(*TWO): 1}
    assert not node.mode.was_edited()


def test_clients_of_udp_go_elsewhere_at_once(node: Node) -> None:
    before, after = served("dns", 1, ONE, TWO, protocol="udp"), served("dns", 1, TWO, protocol="udp")
    node.mode.load(before, HERE)
    assert node.mode.change(before, after, list(after))
    assert node.weights(server(1, "udp")) == {Real(*TWO): 1}


def test_a_service_that_goes_leaves_its_address_bound_until_its_connections_are_over(node: Node) -> None:
    before = served("web", 1, ONE)
    node.mode.load(before, HERE)
    node.ipvs.connect(server(1), Real(*ONE), 1)
    assert node.mode.change(before, {}, list(before))
    assert node.mode.change({}, {}, [])
    assert (node.ipvs.count(), node.bound()) == (1, {IPv4Address("10.96.0.1")})
    node.ipvs.connect(server(1), Real(*ONE), 0)
    assert node.mode.change({}, {}, [])
    assert (node.ipvs.count(), node.bound()) == (0, set())
    assert not node.mode.was_edited()


def test_an_address_of_two_services_stays_while_one_of_them_has_it(node: Node) -> None:
    first, second = (served(name, at, ONE, external_ips=(PUBLIC,)) for at, name in enumerate(("a", "b"), 1))
    both = {**first, **second}
    node.mode.load(both, HERE)
    assert node.mode.change(both, second, list(first))
    assert node.mode.change(second, second, [])
    assert Server(PUBLIC, "tcp", 80) in node.ipvs.servers()
    assert PUBLIC in node.bound()


def test_the_last_endpoint_goes_and_comes_back(node: Node) -> None:
    some, none = served("web", 1, ONE), served("web", 1)
    node.mode.load(some, HERE)
    assert node.mode.change(some, none, list(some))
    assert node.weights(server(1)) == {Real(*ONE): 0}
    assert node.mode.change(none, some, list(some))
    assert node.weights(server(1)) == {Real(*ONE): 1}
    assert node.mode.change(some, some, [])
    assert not node.mode.was_edited()


def test_another_number_of_virtual_servers_is_an_edit_whatever_was_changed_meanwhile(node: Node) -> None:
    ports = served("web", 1, ONE)
    node.mode.load(ports, HERE)
    node.ipvs.delete_servers([server(1)])
    assert node.mode.change(ports, ports, [])
    assert node.mode.was_edited()


def test_leaving_takes_until_the_last_connection_is_over(node: Node) -> None:
    node.mode.load({**served("web", 1, ONE, TWO), **served("other", 2, ONE)}, HERE)
    node.ipvs.connect(server(1), Real(*ONE), 1)
    assert not node.mode.teardown()
    assert node.weights(server(1)) == {Real(*ONE): 0}
    assert node.bound() == {IPv4Address("10.96.0.1")}
    assert "10.96.0.1 " in node.nft.loaded[-1]
    node.ipvs.connect(server(1), Real(*ONE), 0)
    assert node.mode.teardown()
    assert node.ipvs.servers() == {}
    assert DEVICE not in {link.name for link in node.links.links()}


def test_leaving_where_it_never_was_is_done_at_once(node: Node) -> None:
    assert node.mode.teardown()


def test_a_kernel_that_refuses_to_let_it_leave_is_asked_again(node: Node) -> None:
    node.mode.load(served("web", 1, ONE), HERE)
    node.nft.refuse(KernelError("nft: Device or resource busy"))
    assert not node.mode.teardown()
    assert node.mode.teardown()


def test_before_a_load_nothing_is_changed(node: Node) -> None:
    assert not node.mode.change({}, {}, [])


def test_node_ports_are_served_at_every_address_of_the_node_or_where_the_topology_says(node: Node) -> None:
    node.links.ensure_bridge("cni0", mtu=1500)
    node.links.set_addresses("cni0", [IPv4Interface("10.244.1.1/24")])
    ports = served("web", 1, ONE, node_port=30000)
    node.mode.load(ports, HERE)
    own = {each.address for each in node.ipvs.servers() if each.port == 30000}
    assert own == {OWN, IPv4Address("10.244.1.1")}
    named = (IPv4Network("198.18.0.0/16"), IPv4Network("127.0.0.0/8"))
    node.mode.load(ports, Here("a", OWN, HERE.pod_cidr, HERE.cluster_cidr, HERE.service_cidr, "", named))
    assert node.mode.change(ports, ports, [])
    assert {each.address for each in node.ipvs.servers() if each.port == 30000} == {OWN}


def test_rules_are_replaced_in_one_transaction_and_many_of_them_by_a_second_table(node: Node) -> None:
    node.mode.load(served("web", 1, ONE), HERE)
    assert len(node.nft.loaded) == 1
    many: Ports = {key: ports for at in range(700) for key, ports in served(f"s{at}", at + 1, ONE).items()}
    node.mode.load(many, HERE)
    first, *_, last = node.nft.loaded[1:]
    assert "table ip testbed-ipvs-next {" in first
    assert "hook prerouting" not in first
    assert "delete table ip testbed-ipvs\n" in last
    assert "hook prerouting" in last


def test_a_strangers_transaction_is_told_once_whatever_else_he_did(node: Node) -> None:
    ports = served("web", 1, ONE)
    node.mode.load(ports, HERE)
    node.nft.edit()
    node.ipvs.delete_servers([server(1)])
    assert node.mode.was_edited()
    node.mode.load(ports, HERE)
    assert not node.mode.was_edited()
