"""Netlink messages: the bytes, and the commands that say the same."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from testbed.kernel import nlmsg, rtnl, rtroute
from testbed.kernel.links import Hop, Peer, Vxlan
from testbed.kernel.nlmsg import Message
from testbed.kernel.rtnl import Change

VXLAN = Vxlan(1, IPv4Address("198.18.0.10"), 8472, "eth0", 1450, "02:00:00:00:00:01")
NETWORK = IPv4Network("10.244.2.0/24")


@pytest.mark.parametrize(
    ("change", "command"),
    [
        (rtnl.add_bridge("cni0", "0a:58:0a:f4:01:01"),
         "ip link add cni0 address 0a:58:0a:f4:01:01 up type bridge stp_state 0"),
        (rtnl.add_dummy("kube-ipvs0"), "ip link add kube-ipvs0 up type dummy"),
        (rtnl.add_veth("veth1", Peer("eth0", Path("/n/pod")), 9, mtu=1450, mac="", master=("cni0", 3)),
         "ip link add veth1 mtu 1450 master cni0 up type veth peer name eth0 mtu 1450 netns /n/pod"),
        (rtnl.add_vxlan("flannel.1", VXLAN, 2),
         "ip link add flannel.1 mtu 1450 address 02:00:00:00:00:01 up type vxlan id 1 local 198.18.0.10 dev eth0 "
         "dstport 8472 nolearning"),
        (rtnl.set_link("eth0", up=True, mtu=1400), "ip link set eth0 mtu 1400 up"),
        (rtnl.delete_link("veth1"), "ip link delete veth1"),
        (rtnl.address("cni0", 3, IPv4Interface("10.244.1.1/24")), "ip address add 10.244.1.1/24 dev cni0"),
        (rtroute.set_route("flannel.1", 4, NETWORK, Hop(via=IPv4Address("10.244.2.0"), onlink=True), 4),
         "ip route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink proto 4"),
        (rtroute.set_route("underlay", 4, NETWORK, Hop(IPv4Address("198.18.0.10"), (IPv4Address("198.18.0.11"),)), 85),
         "ip route replace 10.244.2.0/24 proto 85 nexthop via 198.18.0.10 dev underlay "
         "nexthop via 198.18.0.11 dev underlay"),
        (rtroute.add_special(rtroute.BLACKHOLE, NETWORK, 85), "ip route add blackhole 10.244.2.0/24 proto 85"),
        (rtroute.delete_special(rtroute.BLACKHOLE, NETWORK, 85), "ip route delete blackhole 10.244.2.0/24 proto 85"),
        (rtroute.delete_route("eth0", 2, NETWORK, 84), "ip route delete 10.244.2.0/24 dev eth0 proto 84"),
        (rtnl.neighbour("flannel.1", 4, IPv4Address("10.244.2.0"), "02:00:00:00:00:02"),
         "ip neighbour replace 10.244.2.0 lladdr 02:00:00:00:00:02 nud permanent dev flannel.1"),
        (rtnl.fdb("flannel.1", 4, "02:00:00:00:00:02", IPv4Address("198.18.0.11"), delete=True),
         "bridge fdb delete 02:00:00:00:00:02 dev flannel.1 dst 198.18.0.11 self permanent"),
    ],
    ids=lambda value: "" if isinstance(value, Change) else str(value)[:40],
)  # fmt: skip
def test_every_change_can_be_read_as_a_command(change: Change, command: str) -> None:
    assert change.command == command


def test_a_message_is_padded_and_read_back() -> None:
    body = nlmsg.text(3, "eth0") + nlmsg.u8(7, 1) + nlmsg.nested(18, [nlmsg.be16(15, 8472)])
    first, second = Message(16, 0, body).encode(1, nlmsg.NLM_F_ACK), Message(17).encode(2, 0)
    assert len(first) % 4 == 0
    replies = list(nlmsg.decode(first + second))
    assert [(reply.type, reply.sequence) for reply in replies] == [(16, 1), (17, 2)]
    found = replies[0].attributes(0)
    assert nlmsg.as_text(found[3]) == "eth0"
    assert nlmsg.as_int(found[7]) == 1
    assert nlmsg.parse_attributes(found[18])[15] == (8472).to_bytes(2, "big")


def test_attributes_cut_short_end_the_list_instead_of_looping() -> None:
    assert nlmsg.parse_attributes(b"\x00\x00\x00\x00") == {}
    assert nlmsg.parse_attributes(b"\x08\x00") == {}
