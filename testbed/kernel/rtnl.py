"""rtnetlink: what can be asked of devices, addresses and neighbours, as messages; routes are `rtroute`. Pure.

A `Change` is a message together with the command of iproute2 that does the same, so that whatever is done can be read
and repeated by hand. Sources: rtnetlink(7), linux/if_link.h, linux/rtnetlink.h, linux/neighbour.h.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from testbed.kernel import nlmsg
from testbed.kernel.links import LinkState, Peer, Vxlan
from testbed.kernel.nlmsg import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Message, Reply

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_GETNSID = 90

RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE = 1, 5, 7

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_LINK_NETNSID = 16, 18, 28, 37
_INFO_KIND, _INFO_DATA, _VETH_PEER, _BR_STP_STATE = 1, 2, 1, 5
_VXLAN_ID, _VXLAN_LINK, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 3, 4, 7, 15
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NDA_DST, _NDA_LLADDR = 1, 2
_NETNSA_NSID, _NETNSA_FD = 1, 3

IFF_UP = 1
_OPERATIONAL = (0, 6)  # IF_OPER_UNKNOWN (a device that has no carrier to speak of) and IF_OPER_UP (RFC 2863)
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80
_NTF_SELF = 2
_AF_BRIDGE = 7

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")

CREATE = NLM_F_CREATE | NLM_F_EXCL
REPLACE = NLM_F_CREATE | NLM_F_REPLACE


@dataclass(frozen=True)
class Change:
    """One mutation: the command that a person would type, and the message that does it."""

    command: str
    message: Message


@dataclass(frozen=True)
class Link:
    """A device with what identifies it beyond its state: the device behind it, and its kind's own parameters."""

    state: LinkState
    master: int
    behind: int
    behind_netns: int | None
    data: dict[int, bytes]

    @property
    def vxlan(self) -> tuple[int, IPv4Address, int, int, bool]:
        """VNI, local address, port, index of the underlay device, whether it learns."""
        data = self.data
        return (
            nlmsg.as_int(data.get(_VXLAN_ID, b"")),
            IPv4Address(data.get(_VXLAN_LOCAL, bytes(4))),
            int.from_bytes(data.get(_VXLAN_PORT, b""), "big"),
            nlmsg.as_int(data.get(_VXLAN_LINK, b"")),
            bool(nlmsg.as_int(data.get(_VXLAN_LEARNING, b""))),
        )


def get_link(name: str) -> Message:
    """Ask for one device; without a name, in a dump, for all."""
    return Message(RTM_GETLINK, 0, _ifinfo() + (nlmsg.text(IFLA_IFNAME, name) if name else b""))


def parse_link(reply: Reply) -> Link:
    """A device; `state.master` is left empty, because the kernel names it by index."""
    _, _, index, flags, _ = _IFINFO.unpack_from(reply.body)
    found = reply.attributes(_IFINFO.size)
    info = nlmsg.parse_attributes(found.get(IFLA_LINKINFO, b""))
    state = LinkState(
        name=nlmsg.as_text(found.get(IFLA_IFNAME, b"")),
        kind=nlmsg.as_text(info.get(_INFO_KIND, b"")),
        index=index,
        mtu=nlmsg.as_int(found.get(IFLA_MTU, b"")),
        mac=nlmsg.as_mac(found.get(IFLA_ADDRESS, b"")),
        is_up=bool(flags & IFF_UP),
    )
    behind = found.get(IFLA_LINK_NETNSID)
    return Link(
        state,
        master=nlmsg.as_int(found.get(IFLA_MASTER, b"")),
        behind=nlmsg.as_int(found.get(IFLA_LINK, b"")),
        behind_netns=None if behind is None else _signed(behind),
        data=nlmsg.parse_attributes(info.get(_INFO_DATA, b"")),
    )


def is_operational(reply: Reply) -> bool:
    """Up, with carrier, and noticed so: before that, whatever the device is given to send is dropped without a word."""
    return nlmsg.as_int(nlmsg.find_attribute(reply.body, _IFINFO.size, IFLA_OPERSTATE)) in _OPERATIONAL


def add_bridge(name: str, mac: str) -> Change:
    """A new bridge, up, without spanning tree."""
    parts = [nlmsg.text(IFLA_IFNAME, name), _kind("bridge", nlmsg.u32(_BR_STP_STATE, 0))]
    command = f"ip link add {name}{words(address=mac)} up type bridge stp_state 0"
    return _add_link(command, [*parts, *_mac(mac)])


def add_dummy(name: str) -> Change:
    """A new device that sends nothing anywhere, up."""
    parts = [nlmsg.text(IFLA_IFNAME, name), _kind("dummy", b"")]
    return _add_link(f"ip link add {name} up type dummy", parts)


def add_veth(name: str, peer: Peer, peer_netns_fd: int, *, mtu: int, mac: str, master: tuple[str, int]) -> Change:
    """A new veth pair, this end up, the other one in its own namespace from the first moment."""
    other = [
        nlmsg.text(IFLA_IFNAME, peer.name),
        nlmsg.u32(IFLA_MTU, mtu),
        nlmsg.u32(IFLA_NET_NS_FD, peer_netns_fd),
        *_mac(peer.mac),
    ]
    parts = [
        nlmsg.text(IFLA_IFNAME, name),
        nlmsg.u32(IFLA_MTU, mtu),
        *_mac(mac),
        *([nlmsg.u32(IFLA_MASTER, master[1])] if master[1] else []),
        _kind("veth", nlmsg.attribute(_VETH_PEER, _ifinfo() + b"".join(other))),
    ]
    here = words(mtu=mtu, address=mac, master=master[0])
    there = words(mtu=mtu, address=peer.mac, netns=peer.netns)
    return _add_link(f"ip link add {name}{here} up type veth peer name {peer.name}{there}", parts)


def add_vxlan(name: str, vxlan: Vxlan, device_index: int) -> Change:
    """A new VXLAN device, up; it learns nothing from packets."""
    data = b"".join(
        [
            nlmsg.u32(_VXLAN_ID, vxlan.vni),
            nlmsg.u32(_VXLAN_LINK, device_index),
            nlmsg.ipv4(_VXLAN_LOCAL, vxlan.local),
            nlmsg.u8(_VXLAN_LEARNING, 0),
            nlmsg.be16(_VXLAN_PORT, vxlan.port),
        ]
    )
    parts = [nlmsg.text(IFLA_IFNAME, name), nlmsg.u32(IFLA_MTU, vxlan.mtu), *_mac(vxlan.mac), _kind("vxlan", data)]
    command = (
        f"ip link add {name}{words(mtu=vxlan.mtu, address=vxlan.mac)} up type vxlan id {vxlan.vni} "
        f"local {vxlan.local} dev {vxlan.device} dstport {vxlan.port} nolearning"
    )
    return _add_link(command, parts)


def set_link(name: str, *, up: bool = False, mtu: int = 0, mac: str = "", master: tuple[str, int] = ("", 0)) -> Change:
    """Change what is given of an existing device."""
    parts = [
        nlmsg.text(IFLA_IFNAME, name),
        *([nlmsg.u32(IFLA_MTU, mtu)] if mtu else []),
        *_mac(mac),
        *([nlmsg.u32(IFLA_MASTER, master[1])] if master[1] else []),
    ]
    changed = words(mtu=mtu, address=mac, master=master[0]) + (" up" if up else "")
    return Change(f"ip link set {name}{changed}", Message(RTM_NEWLINK, 0, _ifinfo(up=up) + b"".join(parts)))


def delete_link(name: str) -> Change:
    """Remove a device, its peer with it."""
    return Change(f"ip link delete {name}", Message(RTM_DELLINK, 0, _ifinfo() + nlmsg.text(IFLA_IFNAME, name)))


def get_netns_id(fd: int) -> Message:
    """Ask which number this namespace gives to another one."""
    return Message(RTM_GETNSID, 0, bytes(4) + nlmsg.u32(_NETNSA_FD, fd))


def parse_netns_id(reply: Reply) -> int:
    """-1 where it has given none."""
    return _signed(reply.attributes(4).get(_NETNSA_NSID, b"\xff" * 4))


def get_addresses(index: int) -> Message:
    """Dump a device's IPv4 addresses."""
    return Message(RTM_GETADDR, 0, _IFADDR.pack(socket.AF_INET, 0, 0, 0, index))


def parse_address(reply: Reply) -> tuple[int, IPv4Interface]:
    """The device's index and the address."""
    _, prefix, _, _, index = _IFADDR.unpack_from(reply.body)
    found = reply.attributes(_IFADDR.size)
    return index, IPv4Interface((found.get(_IFA_LOCAL) or found[_IFA_ADDRESS], prefix))


def address(device: str, index: int, value: IPv4Interface, *, delete: bool = False) -> Change:
    """Add or delete an IPv4 address."""
    body = _IFADDR.pack(socket.AF_INET, value.network.prefixlen, 0, 0, index)
    body += nlmsg.ipv4(_IFA_LOCAL, value.ip) + nlmsg.ipv4(_IFA_ADDRESS, value.ip)
    command = f"ip address {'delete' if delete else 'add'} {value} dev {device}"
    return Change(command, Message(RTM_DELADDR if delete else RTM_NEWADDR, 0 if delete else CREATE, body))


def get_neighbours() -> Message:
    """Dump all IPv4 neighbours."""
    return Message(RTM_GETNEIGH, 0, _NDMSG.pack(socket.AF_INET, 0, 0, 0, 0))


def get_fdb(index: int) -> Message:
    """Dump a device's forwarding entries."""
    return Message(RTM_GETNEIGH, 0, _NDMSG.pack(_AF_BRIDGE, index, 0, 0, 0))


def parse_neighbour(reply: Reply) -> tuple[int, IPv4Address | None, str] | None:
    """Device index, IPv4 address and MAC of a permanent neighbour or forwarding entry; None for any other."""
    _, index, state, _, _ = _NDMSG.unpack_from(reply.body)
    found = reply.attributes(_NDMSG.size)
    if not state & _NUD_PERMANENT or _NDA_LLADDR not in found:
        return None
    return index, ipv4_address(found.get(_NDA_DST)), nlmsg.as_mac(found[_NDA_LLADDR])


def neighbour(device: str, index: int, ip: IPv4Address, mac: str, *, delete: bool = False) -> Change:
    """Put or remove a permanent neighbour."""
    body = _NDMSG.pack(socket.AF_INET, index, _NUD_PERMANENT, 0, 0)
    body += nlmsg.ipv4(_NDA_DST, ip) + (b"" if delete else nlmsg.mac(_NDA_LLADDR, mac))
    verb = f"delete {ip}" if delete else f"replace {ip} lladdr {mac} nud permanent"
    return Change(f"ip neighbour {verb} dev {device}", _neighbour_message(body, delete))


def fdb(device: str, index: int, mac: str, ip: IPv4Address, *, delete: bool = False) -> Change:
    """Put or remove a static forwarding entry of a VXLAN device."""
    body = _NDMSG.pack(_AF_BRIDGE, index, _NUD_PERMANENT | _NUD_NOARP, _NTF_SELF, 0)
    body += nlmsg.mac(_NDA_LLADDR, mac) + nlmsg.ipv4(_NDA_DST, ip)
    verb = "delete" if delete else "replace"
    return Change(f"bridge fdb {verb} {mac} dev {device} dst {ip} self permanent", _neighbour_message(body, delete))


def _neighbour_message(body: bytes, delete: bool) -> Message:
    return Message(RTM_DELNEIGH, 0, body) if delete else Message(RTM_NEWNEIGH, REPLACE, body)


def _add_link(command: str, parts: list[bytes]) -> Change:
    return Change(command, Message(RTM_NEWLINK, CREATE, _ifinfo(up=True) + b"".join(parts)))


def _ifinfo(*, up: bool = False) -> bytes:
    return _IFINFO.pack(0, 0, 0, IFF_UP if up else 0, IFF_UP if up else 0)


def _kind(kind: str, data: bytes) -> bytes:
    return nlmsg.nested(IFLA_LINKINFO, [nlmsg.text(_INFO_KIND, kind), nlmsg.nested(_INFO_DATA, [data])])


def _mac(mac: str) -> list[bytes]:
    return [nlmsg.mac(IFLA_ADDRESS, mac)] if mac else []


def words(**pairs: object) -> str:
    """The pairs as a command of iproute2 has them; what is empty is left out."""
    return "".join(f" {name} {value}" for name, value in pairs.items() if value)


def ipv4_address(value: bytes | None) -> IPv4Address | None:
    """The address of an attribute, if there is one."""
    return IPv4Address(value) if value else None


def _signed(value: bytes) -> int:
    return int(struct.unpack("=i", value)[0])
