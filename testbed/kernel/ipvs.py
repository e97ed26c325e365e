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
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from testbed.errors import KernelError
from testbed.kernel import ipvs_wire, nlmsg, sysctl
from testbed.kernel import netns as namespaces
from testbed.kernel.genetlink import Family
from testbed.kernel.ipvs_wire import Change, Real, RealState, Server

log = logging.getLogger(__name__)

CONNTRACK = "net.ipv4.vs.conntrack"
"""Whether IPVS keeps connection tracking informed; without it nothing it sends can be masqueraded."""

_CONNECTIONS = Path("/proc/thread-self/net/ip_vs_conn")
_GET_INFO = 0x481
"""The socket option IP_VS_SO_GET_INFO, whose answer is: version, size of the connection table, virtual servers."""


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
        made = [ipvs_wire.add_server(server, persistence_s) for server, persistence_s in servers.items()]
        answers = self._execute(made, tolerate=(errno.EEXIST,))
        there = [server for server, error in zip(servers, answers, strict=True) if error]
        self._execute([ipvs_wire.edit_server(server, servers[server]) for server in there])

    def delete_servers(self, servers: Iterable[Server]) -> None:
        """See Ipvs."""
        self._execute([ipvs_wire.delete_server(server) for server in servers], tolerate=(errno.ESRCH,))

    def ensure_reals(self, reals: Iterable[tuple[Server, Real]], *, weight: int) -> None:
        """See Ipvs."""
        wanted = list(reals)
        answers = self._execute([ipvs_wire.add_real(*each, weight) for each in wanted], tolerate=(errno.EEXIST,))
        there = [each for each, error in zip(wanted, answers, strict=True) if error]
        self._execute([ipvs_wire.edit_real(*each, weight) for each in there])

    def delete_reals(self, reals: Iterable[tuple[Server, Real]]) -> None:
        """See Ipvs."""
        self._execute([ipvs_wire.delete_real(*each) for each in reals], tolerate=(errno.ESRCH, errno.ENOENT))

    def servers(self) -> dict[Server, int]:
        """See Ipvs."""
        return dict(filter(None, map(ipvs_wire.parse_server, self._family.dump(ipvs_wire.GET_SERVICE))))

    def reals(self, server: Server) -> dict[Real, RealState]:
        """See Ipvs."""
        return dict(
            map(
                ipvs_wire.parse_real,
                self._family.dump(ipvs_wire.GET_REAL, nlmsg.nested(ipvs_wire.SERVICE, ipvs_wire.key(server))),
            )
        )

    def clients(self, server: Server) -> dict[IPv4Address, Real]:
        """See Ipvs."""
        listed = _connections() if self._netns is None else namespaces.inside(self._netns, _connections)
        return dict(ipvs_wire.parse_clients(listed, server))

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

    def _execute(self, changes: Sequence[Change], *, tolerate: Sequence[int] = ()) -> list[int]:
        """Do all; each one's errno. The first that is not tolerated is raised, once all have been tried."""
        for change in changes if log.isEnabledFor(logging.INFO) else ():
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
        return "this kernel lets only root of the machine use IPVS" if error.errno == errno.EPERM else str(error)
    finally:
        ipvs.close()
    return ""


def _connections() -> str:
    return _CONNECTIONS.read_text(encoding="ascii")


def _datagram_socket() -> socket.socket:
    """Any IPv4 socket answers for IPVS."""
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
