"""IP virtual servers (IPVS) of one network namespace, over generic netlink.

A virtual server is an address, protocol and port that the kernel's load balancer answers for; its real servers are
where it sends each new connection. Only what the proxy needs: IPv4, translation (`masquerading` in IPVS' own words),
persistence by single client address. Source: linux/ip_vs.h; ipvsadm(8) for the commands that are logged.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from testbed.errors import KernelError
from testbed.kernel import genetlink, nlmsg, sysctl
from testbed.kernel import netns as namespaces
from testbed.kernel.genetlink import Family
from testbed.kernel.nlmsg import NLM_F_CREATE, Reply

log = logging.getLogger(__name__)

SCHEDULER = "rr"
"""Round robin: each real server in turn."""
CONNTRACK = "net.ipv4.vs.conntrack"
"""Whether IPVS keeps connection tracking informed; without it nothing it sends can be masqueraded."""

_NEW_SERVICE, _SET_SERVICE, _DELETE_SERVICE, _GET_SERVICE = 1, 2, 3, 4
_NEW_REAL, _SET_REAL, _DELETE_REAL, _GET_REAL = 5, 6, 7, 8
_SERVICE, _REAL = 1, 2
_AF, _PROTOCOL, _ADDRESS, _PORT, _FWMARK, _SCHEDULER, _FLAGS, _TIMEOUT, _NETMASK = range(1, 10)
_REAL_ADDRESS, _REAL_PORT, _REAL_METHOD, _REAL_WEIGHT, _REAL_UPPER, _REAL_LOWER = range(1, 7)
_REAL_ACTIVE, _REAL_INACTIVE, _REAL_PERSISTENT, _REAL_STATS, _REAL_FAMILY = range(7, 12)
_STATS_CONNECTIONS = 1
_PERSISTENT = 0x0001
_MASQUERADING = 0
_CONNECTIONS = Path("/proc/thread-self/net/ip_vs_conn")
_GET_INFO = 0x481
"""The socket option IP_VS_SO_GET_INFO, whose answer is: version, size of the connection table, virtual servers."""
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


class Ipvs(Protocol):
    """Virtual servers of one network namespace. Raises KernelError with the kernel's errno, ENOENT where the kernel has
    no IPVS at all."""

    def ensure_servers(self, servers: Mapping[Server, int]) -> None:
        """Virtual servers, each with the seconds for which a client keeps its real server after its last connection;
        0: it does not."""
        ...

    def delete_servers(self, servers: Iterable[Server]) -> None:
        """No such virtual servers, nor their real servers. Connections through them end."""
        ...

    def ensure_reals(self, reals: Iterable[tuple[Server, Real]], *, weight: int) -> None:
        """Real servers of this weight."""
        ...

    def delete_reals(self, reals: Iterable[tuple[Server, Real]]) -> None:
        """No such real servers. Connections to them end."""
        ...

    def servers(self) -> dict[Server, int]:
        """All virtual servers, as `ensure_servers` takes them."""
        ...

    def reals(self, server: Server) -> dict[Real, RealState]:
        """The real servers of one virtual server; none where there is no such server."""
        ...

    def clients(self, server: Server) -> dict[IPv4Address, Real]:
        """Who keeps which real server (persistence). Reads all connections of the namespace, and may take its time."""
        ...

    def count(self) -> int:
        """How many virtual servers there are: cheap, whatever their number; 0 where the kernel has no IPVS."""
        ...

    def set_parameters(self, values: Mapping[str, str]) -> None:
        """Kernel parameters of the namespace; KernelError names one that cannot be set."""
        ...

    def close(self) -> None:
        """Release the handle."""
        ...


class NetlinkIpvs:
    """The kernel's `Ipvs` of the namespace at `netns`, or of the calling thread's own."""

    def __init__(self, netns: Path | None = None) -> None:
        self._family = Family("IPVS", 1, netns)
        self._netns = netns
        self._prefix = f"nsenter --net={netns} " if netns else ""
        opened = _datagram_socket if netns is None else lambda: namespaces.inside(netns, _datagram_socket)
        self._socket: socket.socket = opened()

    def ensure_servers(self, servers: Mapping[Server, int]) -> None:
        """See Ipvs."""
        made = [_add_server(server, persistence_s) for server, persistence_s in servers.items()]
        answers = self._execute(made, tolerate=(errno.EEXIST,))
        there = [server for server, error in zip(servers, answers, strict=True) if error]
        self._execute([_edit_server(server, servers[server]) for server in there])

    def delete_servers(self, servers: Iterable[Server]) -> None:
        """See Ipvs."""
        self._execute([_delete_server(server) for server in servers], tolerate=(errno.ESRCH,))

    def ensure_reals(self, reals: Iterable[tuple[Server, Real]], *, weight: int) -> None:
        """See Ipvs."""
        wanted = list(reals)
        answers = self._execute([_add_real(*each, weight) for each in wanted], tolerate=(errno.EEXIST,))
        there = [each for each, error in zip(wanted, answers, strict=True) if error]
        self._execute([_edit_real(*each, weight) for each in there])

    def delete_reals(self, reals: Iterable[tuple[Server, Real]]) -> None:
        """See Ipvs."""
        self._execute([_delete_real(*each) for each in reals], tolerate=(errno.ESRCH, errno.ENOENT))

    def servers(self) -> dict[Server, int]:
        """See Ipvs."""
        return dict(filter(None, map(_parse_server, self._family.dump(_GET_SERVICE))))

    def reals(self, server: Server) -> dict[Real, RealState]:
        """See Ipvs."""
        return dict(map(_parse_real, self._family.dump(_GET_REAL, nlmsg.nested(_SERVICE, _key(server)))))

    def clients(self, server: Server) -> dict[IPv4Address, Real]:
        """See Ipvs."""
        listed = _connections() if self._netns is None else namespaces.inside(self._netns, _connections)
        return dict(_parse_clients(listed, server))

    def count(self) -> int:
        """See Ipvs."""
        try:
            answer = self._socket.getsockopt(socket.IPPROTO_IP, _GET_INFO, 12)
        except OSError as error:
            if error.errno == errno.ENOPROTOOPT:
                return 0
            raise KernelError(f"IPVS: {error.strerror}", error.errno or 0) from None
        return int(struct.unpack("=III", answer)[2])

    def set_parameters(self, values: Mapping[str, str]) -> None:
        """See Ipvs."""
        sysctl.set_sysctls(self._netns, values)

    def close(self) -> None:
        """See Ipvs."""
        self._family.close()
        self._socket.close()

    def _execute(self, changes: Sequence[_Change], *, tolerate: Sequence[int] = ()) -> list[int]:
        """Do all; each one's errno. The first that is not tolerated is raised, once all have been tried."""
        for change in changes:
            log.info("%s%s", self._prefix, change.says())
        answers = self._family.execute((change.command, change.flags, change.attributes) for change in changes)
        for change, error in zip(changes, answers, strict=True):
            if error and error.errno not in tolerate:
                raise KernelError(f"{self._prefix}{change.says()}: {error}", error.errno)
        return [error.errno if error else 0 for error in answers]


def why_not() -> str:
    """Why proxy mode ipvs cannot be run here, a sentence; empty where it can. Only to be called in a scratch namespace:
    a virtual server is made in it."""
    ipvs = NetlinkIpvs()
    probe = Server(IPv4Address("192.0.2.1"), "tcp", 1)
    try:
        ipvs.ensure_servers({probe: 0})
        ipvs.delete_servers([probe])
        ipvs.set_parameters({CONNTRACK: "1"})
    except KernelError as error:
        if error.errno == errno.ENOENT and CONNTRACK in str(error):
            return f"the kernel does not let this user set {CONNTRACK}"
        return str(error)
    finally:
        ipvs.close()
    return ""


@dataclass(frozen=True)
class _Change:
    """One command to the kernel, and how to say it with ipvsadm."""

    command: int
    attributes: bytes
    says: Callable[[], str]
    flags: int = 0


def _add_server(server: Server, persistence_s: int) -> _Change:
    return _server_change(_NEW_SERVICE, "-A", server, persistence_s, NLM_F_CREATE)


def _edit_server(server: Server, persistence_s: int) -> _Change:
    return _server_change(_SET_SERVICE, "-E", server, persistence_s)


def _server_change(command: int, verb: str, server: Server, persistence_s: int, flags: int = 0) -> _Change:
    parts = [
        *_key(server),
        nlmsg.text(_SCHEDULER, SCHEDULER),
        nlmsg.attribute(_FLAGS, struct.pack("=II", _PERSISTENT if persistence_s else 0, _EVERY_BIT)),
        nlmsg.u32(_TIMEOUT, persistence_s),
        nlmsg.u32(_NETMASK, _EVERY_BIT),
    ]
    persistence = f" -p {persistence_s}" if persistence_s else ""
    return _Change(
        command,
        nlmsg.nested(_SERVICE, parts),
        lambda: f"ipvsadm {verb} {say(server)} -s {SCHEDULER}{persistence}",
        flags,
    )


def _delete_server(server: Server) -> _Change:
    return _Change(_DELETE_SERVICE, nlmsg.nested(_SERVICE, _key(server)), lambda: f"ipvsadm -D {say(server)}")


def _add_real(server: Server, real: Real, weight: int) -> _Change:
    return _real_change(_NEW_REAL, "-a", server, real, weight, NLM_F_CREATE)


def _edit_real(server: Server, real: Real, weight: int) -> _Change:
    return _real_change(_SET_REAL, "-e", server, real, weight)


def _real_change(command: int, verb: str, server: Server, real: Real, weight: int, flags: int = 0) -> _Change:
    parts = [
        *_real_key(real),
        nlmsg.u32(_REAL_METHOD, _MASQUERADING),
        nlmsg.u32(_REAL_WEIGHT, weight),
        nlmsg.u32(_REAL_UPPER, 0),
        nlmsg.u32(_REAL_LOWER, 0),
    ]
    attributes = nlmsg.nested(_SERVICE, _key(server)) + nlmsg.nested(_REAL, parts)
    return _Change(
        command,
        attributes,
        lambda: f"ipvsadm {verb} {say(server)} -r {real.address}:{real.port} -m -w {weight}",
        flags,
    )


def _delete_real(server: Server, real: Real) -> _Change:
    attributes = nlmsg.nested(_SERVICE, _key(server)) + nlmsg.nested(_REAL, _real_key(real))
    return _Change(_DELETE_REAL, attributes, lambda: f"ipvsadm -d {say(server)} -r {real.address}:{real.port}")


def say(server: Server) -> str:
    """The virtual server as ipvsadm(8) has it: `-t 10.96.0.10:80`."""
    option = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}[server.protocol]
    return f"{option} {server.address}:{server.port}"


def _key(server: Server) -> list[bytes]:
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


def _parse_server(reply: Reply) -> tuple[Server, int] | None:
    """None for one that is known by a firewall mark, or of another family: none of ours."""
    found = nlmsg.parse_attributes(genetlink.parse(reply)[_SERVICE])
    if _FWMARK in found or nlmsg.as_int(found[_AF]) != socket.AF_INET:
        return None
    protocol = _NAMES.get(nlmsg.as_int(found[_PROTOCOL]))
    if protocol is None:
        return None
    flags, _ = struct.unpack("=II", found[_FLAGS])
    server = Server(IPv4Address(found[_ADDRESS][:4]), protocol, int.from_bytes(found[_PORT], "big"))
    return server, nlmsg.as_int(found[_TIMEOUT]) if flags & _PERSISTENT else 0


def _parse_real(reply: Reply) -> tuple[Real, RealState]:
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


def _connections() -> str:
    return _CONNECTIONS.read_text(encoding="ascii")


def _parse_clients(listed: str, server: Server) -> Iterator[tuple[IPv4Address, Real]]:
    """A client is bound by an entry whose client port is 0: `TCP 0AF40102 0000 0A600015 0050 0AF40103 1F90 …`."""
    wanted = [server.protocol.upper(), "0000", server.address.packed.hex().upper(), f"{server.port:04X}"]
    for line in listed.splitlines()[1:]:
        protocol, client, client_port, address, port, real_address, real_port, *_ = line.split()
        if [protocol, client_port, address, port] == wanted:
            yield IPv4Address(int(client, 16)), Real(IPv4Address(int(real_address, 16)), int(real_port, 16))


def _datagram_socket() -> socket.socket:
    """Any IPv4 socket answers for IPVS."""
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
