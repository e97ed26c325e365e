"""rtnetlink: what can be asked of routes, as messages. Pure.

Sources: rtnetlink(7), linux/rtnetlink.h, net/ipv4/fib_semantics.c.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Network

from testbed.kernel import nlmsg
from testbed.kernel.links import Hop
from testbed.kernel.nlmsg import Message, Reply
from testbed.kernel.rtnl import CREATE, REPLACE, Change, ipv4_address, words

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_METRICS, _RTA_MULTIPATH, _RTAX_MTU = 1, 4, 5, 7, 8, 9, 2
_RTNH_F_ONLINK = 4
_MAIN_TABLE = 254
_UNICAST, BLACKHOLE, UNREACHABLE = 1, 6, 7
_SPECIAL = {BLACKHOLE: "blackhole", UNREACHABLE: "unreachable"}
"""Routes that lead nowhere: one drops silently, the other says so."""
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_ANY = 0, 253, 255

_RTMSG = struct.Struct("=BBBBBBBBI")
_NEXTHOP = struct.Struct("=HBBi")


def get_routes(index: int, protocol: int) -> Message:
    """Dump the main table's IPv4 routes of one origin through one device."""
    body = _RTMSG.pack(socket.AF_INET, 0, 0, 0, _MAIN_TABLE, protocol, 0, 0, 0)
    return Message(RTM_GETROUTE, 0, body + nlmsg.u32(_RTA_OIF, index))


def parse_route(reply: Reply) -> tuple[int, int, IPv4Network, Hop]:
    """Device index, origin, destination and next hop; of a route over several devices, the first one's index."""
    _, prefix, _, _, _, protocol, _, _, flags = _RTMSG.unpack_from(reply.body)
    found = reply.attributes(_RTMSG.size)
    metrics = nlmsg.parse_attributes(found.get(_RTA_METRICS, b""))
    alone = (nlmsg.as_int(found.get(_RTA_OIF, b"")), flags, found)
    hops = list(_hops(found[_RTA_MULTIPATH])) if _RTA_MULTIPATH in found else [alone]
    device, flags, _ = hops[0]
    gateways = [ipv4_address(each.get(_RTA_GATEWAY)) for _, _, each in hops]
    hop = Hop(
        via=gateways[0],
        others=tuple(filter(None, gateways[1:])),
        onlink=bool(flags & _RTNH_F_ONLINK),
        source=ipv4_address(found.get(_RTA_PREFSRC)),
        mtu=nlmsg.as_int(metrics.get(_RTAX_MTU, b"")),
    )
    network = IPv4Network((found.get(_RTA_DST, bytes(4)), prefix))
    return device, protocol, network, hop


def set_route(device: str, index: int, network: IPv4Network, hop: Hop, protocol: int) -> Change:
    """Put a route where its destination had another or none."""
    scope = _SCOPE_UNIVERSE if hop.via else _SCOPE_LINK
    body = _route(network, protocol, scope=scope, onlink=hop.onlink) + _next_hops(index, hop)
    body += nlmsg.ipv4(_RTA_PREFSRC, hop.source) if hop.source else b""
    body += nlmsg.nested(_RTA_METRICS, [nlmsg.u32(_RTAX_MTU, hop.mtu)]) if hop.mtu else b""
    rest, onlink = words(src=hop.source, mtu=hop.mtu, proto=protocol), " onlink" if hop.onlink else ""
    hops = [f"{words(via=via, dev=device)}{onlink}" for via in (hop.via, *hop.others)]
    several = "".join(f" nexthop{each}" for each in hops)
    command = f"ip route replace {network}" + (f"{rest}{several}" if hop.others else f"{hops[0]}{rest}")
    return Change(command, Message(RTM_NEWROUTE, REPLACE, body))


def delete_route(device: str, index: int, network: IPv4Network, protocol: int) -> Change:
    """Remove a route through the device."""
    body = _route(network, protocol, scope=_SCOPE_ANY) + nlmsg.u32(_RTA_OIF, index)
    return Change(f"ip route delete {network} dev {device} proto {protocol}", Message(RTM_DELROUTE, 0, body))


def get_special(kind: int, protocol: int) -> Message:
    """Dump the main table's routes of one origin that lead nowhere, of one kind."""
    return Message(RTM_GETROUTE, 0, _RTMSG.pack(socket.AF_INET, 0, 0, 0, _MAIN_TABLE, protocol, 0, kind, 0))


def add_special(kind: int, network: IPv4Network, protocol: int) -> Change:
    """A route that leads nowhere."""
    body = _route(network, protocol, scope=_SCOPE_UNIVERSE, kind=kind)
    return Change(f"ip route add {_SPECIAL[kind]} {network} proto {protocol}", Message(RTM_NEWROUTE, CREATE, body))


def delete_special(kind: int, network: IPv4Network, protocol: int) -> Change:
    """Remove a route that leads nowhere."""
    body = _route(network, protocol, scope=_SCOPE_ANY, kind=kind)
    return Change(f"ip route delete {_SPECIAL[kind]} {network} proto {protocol}", Message(RTM_DELROUTE, 0, body))


def _hops(data: bytes) -> Iterator[tuple[int, int, dict[int, bytes]]]:
    """Device index, flags and attributes of each `struct rtnexthop`."""
    offset = 0
    while offset + _NEXTHOP.size <= len(data):
        length, flags, _, device = _NEXTHOP.unpack_from(data, offset)
        yield device, flags, nlmsg.parse_attributes(data[offset : offset + length], _NEXTHOP.size)
        offset += (length + 3) & ~3


def _next_hops(index: int, hop: Hop) -> bytes:
    gateways = [nlmsg.ipv4(_RTA_GATEWAY, via) for via in (hop.via, *hop.others) if via]
    if not hop.others:
        return nlmsg.u32(_RTA_OIF, index) + b"".join(gateways)
    flags = _RTNH_F_ONLINK if hop.onlink else 0
    return nlmsg.attribute(
        _RTA_MULTIPATH,
        b"".join(_NEXTHOP.pack(_NEXTHOP.size + len(gateway), flags, 0, index) + gateway for gateway in gateways),
    )


def _route(network: IPv4Network, protocol: int, *, scope: int, onlink: bool = False, kind: int = _UNICAST) -> bytes:
    flags = _RTNH_F_ONLINK if onlink else 0
    fixed = _RTMSG.pack(socket.AF_INET, network.prefixlen, 0, 0, _MAIN_TABLE, protocol, scope, kind, flags)
    return fixed + nlmsg.ipv4(_RTA_DST, network.network_address)
