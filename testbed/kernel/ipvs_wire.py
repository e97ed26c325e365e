"""The messages of IPVS (linux/ip_vs.h), to bytes and back, and the commands of ipvsadm(8) that say the same. Pure."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from testbed.kernel import genetlink, nlmsg
from testbed.kernel.nlmsg import NLM_F_CREATE, Reply

SCHEDULER = "rr"
"""Round robin: each real server in turn."""

_NEW_SERVICE, _SET_SERVICE, _DELETE_SERVICE, GET_SERVICE = 1, 2, 3, 4
_NEW_REAL, _SET_REAL, _DELETE_REAL, GET_REAL = 5, 6, 7, 8
SERVICE, _REAL = 1, 2
_AF, _PROTOCOL, _ADDRESS, _PORT, _FWMARK, _SCHEDULER, _FLAGS, _TIMEOUT, _NETMASK = range(1, 10)
_REAL_ADDRESS, _REAL_PORT, _REAL_METHOD, _REAL_WEIGHT, _REAL_UPPER, _REAL_LOWER = range(1, 7)
_REAL_ACTIVE, _REAL_INACTIVE, _REAL_PERSISTENT, _REAL_STATS, _REAL_FAMILY = range(7, 12)
_STATS_CONNECTIONS = 1
_PERSISTENT = 0x0001
_MASQUERADING = 0
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}
_NAMES = {number: name for name, number in _PROTOCOLS.items()}
_EVERY_BIT = 0xFFFFFFFF


@dataclass(frozen=True, order=True, slots=True)
class Server:
    """What a virtual server is known by."""

    address: IPv4Address
    protocol: str
    """tcp, udp or sctp."""
    port: int


@dataclass(frozen=True, order=True, slots=True)
class Real:
    """What a real server of one virtual server is known by."""

    address: IPv4Address
    port: int


@dataclass(frozen=True, slots=True)
class RealState:
    """A real server as the kernel shows it."""

    weight: int
    """0: it keeps the connections it has, and takes no new ones."""
    active: int = 0
    """TCP connections that are established."""
    inactive: int = 0
    connections: int = 0
    """Ever since it was added."""
    persistent: int = 0
    """Clients that are bound to it."""


@dataclass(frozen=True)
class Change:
    """One command to the kernel, and how to say it with ipvsadm: told only where somebody listens."""

    command: int
    attributes: bytes
    says: Callable[[], str]
    flags: int = 0


def add_server(server: Server, persistence_s: int) -> Change:
    """A new virtual server."""
    return _server_change(_NEW_SERVICE, "-A", server, persistence_s, NLM_F_CREATE)


def edit_server(server: Server, persistence_s: int) -> Change:
    """Another persistence for a virtual server."""
    return _server_change(_SET_SERVICE, "-E", server, persistence_s)


def _server_change(command: int, verb: str, server: Server, persistence_s: int, flags: int = 0) -> Change:
    parts = [
        *key(server),
        nlmsg.text(_SCHEDULER, SCHEDULER),
        nlmsg.attribute(_FLAGS, struct.pack("=II", _PERSISTENT if persistence_s else 0, _EVERY_BIT)),
        nlmsg.u32(_TIMEOUT, persistence_s),
        nlmsg.u32(_NETMASK, _EVERY_BIT),
    ]
    persistence = f" -p {persistence_s}" if persistence_s else ""
    return Change(
        command,
        nlmsg.nested(SERVICE, parts),
        lambda: f"ipvsadm {verb} {say(server)} -s {SCHEDULER}{persistence}",
        flags,
    )


def delete_server(server: Server) -> Change:
    """No such virtual server."""
    return Change(_DELETE_SERVICE, nlmsg.nested(SERVICE, key(server)), lambda: f"ipvsadm -D {say(server)}")


def add_real(server: Server, real: Real, weight: int) -> Change:
    """A new real server."""
    return _real_change(_NEW_REAL, "-a", server, real, weight, NLM_F_CREATE)


def edit_real(server: Server, real: Real, weight: int) -> Change:
    """Another weight for a real server."""
    return _real_change(_SET_REAL, "-e", server, real, weight)


def _real_change(command: int, verb: str, server: Server, real: Real, weight: int, flags: int = 0) -> Change:
    parts = [
        *_real_key(real),
        nlmsg.u32(_REAL_METHOD, _MASQUERADING),
        nlmsg.u32(_REAL_WEIGHT, weight),
        nlmsg.u32(_REAL_UPPER, 0),
        nlmsg.u32(_REAL_LOWER, 0),
    ]
    attributes = nlmsg.nested(SERVICE, key(server)) + nlmsg.nested(_REAL, parts)
    return Change(
        command,
        attributes,
        lambda: f"ipvsadm {verb} {say(server)} -r {real.address}:{real.port} -m -w {weight}",
        flags,
    )


def delete_real(server: Server, real: Real) -> Change:
    """No such real server."""
    attributes = nlmsg.nested(SERVICE, key(server)) + nlmsg.nested(_REAL, _real_key(real))
    return Change(_DELETE_REAL, attributes, lambda: f"ipvsadm -d {say(server)} -r {real.address}:{real.port}")


def say(server: Server) -> str:
    """The virtual server as ipvsadm(8) has it: `-t 10.96.0.10:80`."""
    option = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}[server.protocol]
    return f"{option} {server.address}:{server.port}"


def key(server: Server) -> list[bytes]:
    """The attributes by which the kernel finds a virtual server."""
    return [
        nlmsg.u16(_AF, socket.AF_INET),
        nlmsg.u16(_PROTOCOL, _PROTOCOLS[server.protocol]),
        nlmsg.attribute(_ADDRESS, _union(server.address)),
        nlmsg.be16(_PORT, server.port),
    ]


def _real_key(real: Real) -> list[bytes]:
    return [
        nlmsg.u16(_REAL_FAMILY, socket.AF_INET),
        nlmsg.attribute(_REAL_ADDRESS, _union(real.address)),
        nlmsg.be16(_REAL_PORT, real.port),
    ]


def _union(address: IPv4Address) -> bytes:
    """`union nf_inet_addr`"""
    return address.packed + bytes(12)


def parse_server(reply: Reply) -> tuple[Server, int] | None:
    """None for one that is known by a firewall mark, or of another family: none of ours."""
    found = nlmsg.parse_attributes(genetlink.parse(reply)[SERVICE])
    if _FWMARK in found or nlmsg.as_int(found[_AF]) != socket.AF_INET:
        return None
    protocol = _NAMES.get(nlmsg.as_int(found[_PROTOCOL]))
    if protocol is None:
        return None
    flags, _ = struct.unpack("=II", found[_FLAGS])
    server = Server(IPv4Address(found[_ADDRESS][:4]), protocol, int.from_bytes(found[_PORT], "big"))
    return server, nlmsg.as_int(found[_TIMEOUT]) if flags & _PERSISTENT else 0


def parse_real(reply: Reply) -> tuple[Real, RealState]:
    """One real server of a dump."""
    found = nlmsg.parse_attributes(genetlink.parse(reply)[_REAL])
    statistics = nlmsg.parse_attributes(found[_REAL_STATS])
    return (
        Real(IPv4Address(found[_REAL_ADDRESS][:4]), int.from_bytes(found[_REAL_PORT], "big")),
        RealState(
            weight=nlmsg.as_int(found[_REAL_WEIGHT]),
            active=nlmsg.as_int(found[_REAL_ACTIVE]),
            inactive=nlmsg.as_int(found[_REAL_INACTIVE]),
            connections=nlmsg.as_int(statistics[_STATS_CONNECTIONS]),
            persistent=nlmsg.as_int(found[_REAL_PERSISTENT]),
        ),
    )


def parse_clients(listed: str, server: Server) -> Iterator[tuple[IPv4Address, Real]]:
    """Who keeps which real server, from /proc/net/ip_vs_conn.

    A client is bound by an entry whose client port is 0: `TCP 0AF40102 0000 0A600015 0050 0AF40103 1F90 …`.
    """
    wanted = [server.protocol.upper(), "0000", server.address.packed.hex().upper(), f"{server.port:04X}"]
    for line in listed.splitlines()[1:]:
        protocol, client, client_port, address, port, real_address, real_port, *_ = line.split()
        if [protocol, client_port, address, port] == wanted:
            yield IPv4Address(int(client, 16)), Real(IPv4Address(int(real_address, 16)), int(real_port, 16))
