"""One contract for the devices of the kernel and for those in memory."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import NamedTuple

import pytest

from testbed.errors import KernelError
from testbed.kernel.fake import FakeLinks
from testbed.kernel.links import Hop, Links, LinkState, Peer, Vxlan


class Two(NamedTuple):
    """Two namespaces and their devices."""

    here: Links
    there: Links
    netns: Path
    """Of `there`."""


@pytest.fixture(params=["fake", "real"])
def two(request: pytest.FixtureRequest) -> Two:
    if request.param == "fake":
        here = FakeLinks(Path("here"))
        return Two(here, here.enter(Path("there")), Path("there"))
    lab = request.getfixturevalue("lab")
    return Two(lab.links("tb-c-here"), lab.links("tb-c-there"), lab.place("tb-c-there"))


def link(links: Links, name: str) -> LinkState | None:
    return next((link for link in links.links() if link.name == name), None)


def test_a_bridge_is_up_and_has_the_mtu_and_mac_asked_for(two: Two) -> None:
    two.here.ensure_bridge("br", mtu=1450, mac="0a:58:0a:f4:00:01")
    found = link(two.here, "br")
    assert found
    assert (found.kind, found.mtu, found.mac, found.is_up) == ("bridge", 1450, "0a:58:0a:f4:00:01", True)


def test_a_bridge_that_exists_is_changed_and_not_made_anew(two: Two) -> None:
    two.here.ensure_bridge("br", mtu=1500)
    before = link(two.here, "br")
    two.here.ensure_bridge("br", mtu=1400)
    assert before
    assert link(two.here, "br") == replace(before, mtu=1400)


def test_a_bridge_keeps_its_mtu_when_a_smaller_port_joins(two: Two) -> None:
    two.here.ensure_bridge("br", mtu=1450)
    two.here.ensure_veth("v", Peer("eth0", two.netns), mtu=1300, master="br")
    found = link(two.here, "br")
    assert found
    assert found.mtu == 1450


def test_a_veth_has_both_ends_up_in_their_namespaces_with_one_mtu(two: Two) -> None:
    two.here.ensure_bridge("br", mtu=1450)
    two.here.ensure_veth("v", Peer("eth0", two.netns, "02:00:00:00:00:07"), mtu=1450, master="br")
    near, far = link(two.here, "v"), link(two.there, "eth0")
    assert near
    assert far
    assert (near.kind, near.mtu, near.master, near.is_up) == ("veth", 1450, "br", True)
    assert (far.kind, far.mtu, far.mac, far.is_up) == ("veth", 1450, "02:00:00:00:00:07", True)


def test_a_device_whose_bridge_was_deleted_can_be_a_port_of_another(two: Two) -> None:
    two.here.ensure_bridge("br", mtu=1450)
    two.here.ensure_veth("v", Peer("eth0", two.netns), mtu=1450, master="br")
    two.here.delete_link("br")
    near = link(two.here, "v")
    assert near
    assert near.master == ""
    two.here.ensure_bridge("other", mtu=1450)
    for _ in range(2):
        two.here.ensure_port("other", "v")
    near = link(two.here, "v")
    assert near
    assert near.master == "other"


def test_a_veth_asked_for_twice_is_the_same_veth(two: Two) -> None:
    two.here.ensure_veth("v", Peer("eth0", two.netns), mtu=1450)
    before = link(two.here, "v"), link(two.there, "eth0")
    two.here.ensure_veth("v", Peer("eth0", two.netns), mtu=1450)
    assert (link(two.here, "v"), link(two.there, "eth0")) == before


def test_a_veth_whose_peer_is_elsewhere_is_made_anew(two: Two) -> None:
    two.here.ensure_veth("v", Peer("old", two.netns), mtu=1450)
    two.here.ensure_veth("v", Peer("eth0", two.netns), mtu=1450)
    assert link(two.there, "eth0")
    assert link(two.there, "old") is None


def test_the_mtu_of_both_ends_of_an_existing_veth_is_corrected(two: Two) -> None:
    two.here.ensure_veth("v", Peer("eth0", two.netns), mtu=1450)
    two.here.ensure_veth("v", Peer("eth0", two.netns), mtu=1400)
    near, far = link(two.here, "v"), link(two.there, "eth0")
    assert near
    assert far
    assert (near.mtu, far.mtu) == (1400, 1400)


def test_deleting_one_end_deletes_the_other_and_again_is_fine(two: Two) -> None:
    two.here.ensure_veth("v", Peer("eth0", two.netns), mtu=1450)
    two.here.delete_link("v")
    two.here.delete_link("v")
    assert link(two.there, "eth0") is None


def test_addresses_are_exactly_those_given(two: Two) -> None:
    two.here.ensure_bridge("br", mtu=1500)
    two.here.set_addresses("br", [IPv4Interface("10.0.0.1/24"), IPv4Interface("10.0.0.2/24")])
    two.here.set_addresses("br", [IPv4Interface("10.0.0.2/24"), IPv4Interface("10.0.0.3/32")])
    assert two.here.addresses("br") == {IPv4Interface("10.0.0.2/24"), IPv4Interface("10.0.0.3/32")}


def test_a_device_that_bears_addresses_gains_and_loses_single_ones(two: Two) -> None:
    first, second, third = (IPv4Interface(f"10.96.0.{number}/32") for number in (1, 2, 3))
    two.here.delete_addresses("vips", [first])
    for _ in range(2):
        two.here.ensure_dummy("vips")
        two.here.ensure_addresses("vips", [first, second])
    two.here.ensure_addresses("vips", [second, third])
    for _ in range(2):
        two.here.delete_addresses("vips", [first])
    assert two.here.addresses("vips") == {second, third}
    found = link(two.here, "vips")
    assert found
    assert found.is_up


def test_routes_are_exactly_those_given(two: Two) -> None:
    two.here.ensure_bridge("br", mtu=1500)
    two.here.set_addresses("br", [IPv4Interface("10.0.0.1/24")])
    first = {IPv4Network("10.1.0.0/24"): Hop(via=IPv4Address("10.0.0.9"))}
    second = {
        IPv4Network("10.1.0.0/24"): Hop(via=IPv4Address("10.0.0.8")),
        IPv4Network("10.2.0.0/24"): Hop(via=IPv4Address("192.0.2.1"), onlink=True),
        IPv4Network("10.3.0.0/24"): Hop(source=IPv4Address("10.0.0.1"), mtu=1400),
    }
    two.here.set_routes("br", first)
    two.here.set_routes("br", second)
    assert two.here.routes("br") == second
    two.here.set_routes("br", {})
    assert two.here.routes("br") == {}


def test_two_owners_of_routes_through_one_device_leave_each_others_alone(two: Two) -> None:
    two.here.ensure_bridge("br", mtu=1500)
    two.here.set_addresses("br", [IPv4Interface("10.0.0.1/24")])
    default = {IPv4Network("0.0.0.0/0"): Hop(via=IPv4Address("10.0.0.9"))}
    peers = {IPv4Network("10.1.0.0/24"): Hop(via=IPv4Address("10.0.0.8"))}
    two.here.set_routes("br", default)
    two.here.set_routes("br", peers, protocol=84)
    two.here.set_routes("br", default)
    assert two.here.routes("br") == default
    assert two.here.routes("br", protocol=84) == peers


def test_a_route_over_several_gateways_gains_and_loses_them(two: Two) -> None:
    two.here.ensure_bridge("br", mtu=1500)
    two.here.set_addresses("br", [IPv4Interface("10.0.0.1/24")])
    network, gateways = IPv4Network("192.0.2.1/32"), [IPv4Address(f"10.0.0.{number}") for number in (7, 8, 9)]
    for count in (1, 3, 2, 1):
        wanted = {network: Hop(via=gateways[0], others=tuple(gateways[1:count]))}
        for _ in range(2):
            two.here.set_routes("br", wanted, protocol=85)
            assert two.here.routes("br", protocol=85) == wanted
    two.here.set_routes("br", {network: Hop(via=gateways[0], others=tuple(gateways[1:]))}, protocol=85)
    two.here.set_routes("br", {}, protocol=85)
    assert two.here.routes("br", protocol=85) == {}


def test_blackholes_are_exactly_those_given_and_routes_into_them_are_kept(two: Two) -> None:
    two.here.ensure_bridge("br", mtu=1500)
    two.here.set_addresses("br", [IPv4Interface("10.0.0.1/24")])
    hop = {IPv4Network("192.0.2.1/32"): Hop(via=IPv4Address("10.0.0.7"))}
    two.here.set_routes("br", hop, protocol=85)
    for networks in ({IPv4Network("192.0.2.0/24")}, {IPv4Network("192.0.2.0/25")}, set[IPv4Network]()):
        for _ in range(2):
            two.here.set_blackholes(networks, protocol=85)
            assert two.here.blackholes(protocol=85) == networks
    assert two.here.routes("br", protocol=85) == hop


def test_a_vxlan_device_has_its_neighbours_and_forwarding_entries_exactly(two: Two) -> None:
    two.here.ensure_veth("eth0", Peer("eth0", two.netns), mtu=1500)
    two.here.ensure_vxlan("flannel.1", vxlan())
    neighbours = {IPv4Address("10.244.1.0"): "02:42:00:00:00:01", IPv4Address("10.244.2.0"): "02:42:00:00:00:02"}
    fdb = {"02:42:00:00:00:01": IPv4Address("198.18.0.3"), "02:42:00:00:00:02": IPv4Address("198.18.0.4")}
    two.here.set_neighbours("flannel.1", neighbours)
    two.here.set_fdb("flannel.1", fdb)
    assert (two.here.neighbours("flannel.1"), two.here.fdb("flannel.1")) == (neighbours, fdb)
    moved = {"02:42:00:00:00:02": IPv4Address("198.18.0.9")}
    two.here.set_neighbours("flannel.1", {})
    two.here.set_fdb("flannel.1", moved)
    assert (two.here.neighbours("flannel.1"), two.here.fdb("flannel.1")) == ({}, moved)


def test_a_vxlan_device_with_other_parameters_is_replaced_and_an_equal_one_kept(two: Two) -> None:
    two.here.ensure_veth("eth0", Peer("eth0", two.netns), mtu=1500)
    two.here.ensure_vxlan("flannel.1", vxlan())
    two.here.set_fdb("flannel.1", {"02:42:00:00:00:01": IPv4Address("198.18.0.3")})
    two.here.ensure_vxlan("flannel.1", vxlan(mtu=1400))
    assert two.here.fdb("flannel.1")
    two.here.ensure_vxlan("flannel.1", vxlan(vni=2))
    assert not two.here.fdb("flannel.1")
    found = link(two.here, "flannel.1")
    assert found
    assert (found.kind, found.mtu, found.mac, found.is_up) == ("vxlan", 1450, "02:42:c0:00:02:01", True)


def test_a_device_that_does_not_exist_is_named_in_the_error(two: Two) -> None:
    with pytest.raises(KernelError, match="nowhere") as raised:
        two.here.set_addresses("nowhere", [])
    assert raised.value.errno == errno.ENODEV


def vxlan(vni: int = 1, mtu: int = 1450) -> Vxlan:
    return Vxlan(vni, IPv4Address("198.18.0.2"), 8472, "eth0", mtu, "02:42:c0:00:02:01")
