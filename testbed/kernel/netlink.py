"""Devices, addresses, routes and neighbours of one network namespace, through rtnetlink.

A handle is opened inside its namespace and stays there (under 0.2 ms); every method may be called from any thread.
Each mutation is logged first as the command that would do the same, to be pasted into a shell. What differs is read
in a dump, what is to change is sent as one batch.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from testbed.errors import KernelError
from testbed.kernel import nlmsg, rtnl, rtroute
from testbed.kernel.links import STATIC_ROUTE, Hop, LinkState, Peer, Vxlan
from testbed.kernel.nlsocket import NETLINK_ROUTE, NetlinkSocket
from testbed.kernel.rtnl import Change
from testbed.waiting import wait_until

log = logging.getLogger(__name__)

_SIOCGIFFLAGS, _SIOCGIFINDEX = 0x8913, 0x8933
_SETTLE_S = 2.0
_GONE = (errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL)


class NetlinkLinks:
    """The kernel's `Links` of the namespace at `netns`, or of the calling thread's own."""

    def __init__(self, netns: Path | None = None) -> None:
        self._socket = NetlinkSocket(NETLINK_ROUTE, netns)
        self._prefix = f"nsenter --net={netns} " if netns else ""

    def ensure_bridge(self, name: str, *, mtu: int, mac: str = "") -> None:
        """A Linux bridge, up, without spanning tree, of exactly this MTU."""
        found = self._find(name)
        if not found or found.state.kind != "bridge":
            self._replace(found, rtnl.add_bridge(name, mac))
        # An MTU given at creation would not stick: the bridge would follow its smallest port.
        self._adjust(name, mtu=mtu, mac=mac)

    def ensure_dummy(self, name: str) -> None:
        """A device of no use but to bear addresses, up; where the kernel has no dummy devices, a bridge without ports.

        One that has that name stays, of whatever type.
        """
        if not self._find(name):
            (refusal,) = self._apply([rtnl.add_dummy(name)], tolerate=(errno.EEXIST, errno.EOPNOTSUPP))
            if refusal == errno.EOPNOTSUPP:
                self._apply([rtnl.add_bridge(name, "")], tolerate=(errno.EEXIST,))
        self.ensure_up(name)

    def ensure_veth(self, name: str, peer: Peer, *, mtu: int, mac: str = "", master: str = "") -> None:
        """A veth pair: this end here, up; the other in the peer's namespace, up. Both ends have this MTU.

        An end that is left over without its peer is made anew.
        """
        bridge = (master, self._index(master)) if master else ("", 0)
        with _closing(self.enter(peer.netns)) as there:
            with _opened(peer.netns) as fd:
                found, other = self._find(name), there._find(peer.name)
                if found and other and self._is_pair(found, other, fd):
                    self._adjust(name, mtu=mtu, mac=mac, master=bridge)
                else:
                    if other:
                        there.delete_link(peer.name)
                    self._replace(found, rtnl.add_veth(name, peer, fd, mtu=mtu, mac=mac, master=bridge))
            # The kernel cannot bring the other end up while it makes the pair (ENOTCONN).
            there._adjust(peer.name, mtu=mtu, mac=peer.mac)
            there._settle(peer.name)
        self._settle(name)
        if master:
            self._settle(master)

    def ensure_vxlan(self, name: str, vxlan: Vxlan) -> None:
        """A VXLAN device, up, nolearning; one with other parameters is replaced."""
        device = self._index(vxlan.device)
        found = self._find(name)
        wanted = (vxlan.vni, vxlan.local, vxlan.port, device, False)
        if not found or found.state.kind != "vxlan" or found.vxlan != wanted:
            self._replace(found, rtnl.add_vxlan(name, vxlan, device))
        self._adjust(name, mtu=vxlan.mtu, mac=vxlan.mac)

    def ensure_port(self, bridge: str, name: str) -> None:
        """The device is a port of the bridge."""
        index = self._index(bridge)
        if self._link(name).master != index:
            self._apply([rtnl.set_link(name, master=(bridge, index))])

    def ensure_up(self, name: str) -> None:
        """The device is up (`lo` too)."""
        if not nlmsg.as_int(self._fact(_SIOCGIFFLAGS, name)) & rtnl.IFF_UP:
            self._apply([rtnl.set_link(name, up=True)])

    def set_addresses(self, device: str, addresses: Iterable[IPv4Interface]) -> None:
        """Exactly these IPv4 addresses."""
        index, wanted = self._index(device), set(addresses)
        have = self._addresses(index)
        stale = [rtnl.address(device, index, each, delete=True) for each in sorted(have - wanted)]
        # Deleting a primary address takes its secondaries along: put back all that are wanted.
        missing = [rtnl.address(device, index, each) for each in sorted(wanted if stale else wanted - have)]
        self._apply(stale, tolerate=_GONE)
        self._apply(missing, tolerate=(errno.EEXIST,))

    def ensure_addresses(self, device: str, addresses: Iterable[IPv4Interface]) -> None:
        """At least these IPv4 addresses: costs what they cost, however many the device has."""
        index = self._index(device)
        self._apply([rtnl.address(device, index, each) for each in addresses], tolerate=(errno.EEXIST,))

    def delete_addresses(self, device: str, addresses: Iterable[IPv4Interface]) -> None:
        """Not these IPv4 addresses; the device may be gone too."""
        if found := self._find(device):
            index = found.state.index
            gone = [rtnl.address(device, index, each, delete=True) for each in addresses]
            self._apply(gone, tolerate=_GONE)

    def set_routes(self, device: str, routes: Mapping[IPv4Network, Hop], *, protocol: int = STATIC_ROUTE) -> None:
        """Exactly these routes of that origin through the device (main table); others to the same place give way."""
        index = self._index(device)
        have = self._routes(index, protocol)
        stale = [rtroute.delete_route(device, index, network, protocol) for network in have if network not in routes]
        changed = [
            rtroute.set_route(device, index, network, hop, protocol)
            for network, hop in routes.items()
            if have.get(network) != hop
        ]
        self._apply(stale, tolerate=_GONE)
        self._apply(changed)

    def ensure_unreachable(self, network: IPv4Network) -> None:
        """What is sent there and has no narrower route is refused (EHOSTUNREACH, ICMP), not given to the gateway."""
        if network not in self._special(rtroute.UNREACHABLE, STATIC_ROUTE):
            change = rtroute.add_special(rtroute.UNREACHABLE, network, STATIC_ROUTE)
            self._apply([change], tolerate=(errno.EEXIST,))

    def set_blackholes(self, networks: Collection[IPv4Network], *, protocol: int) -> None:
        """Exactly these networks of that origin: what is sent there and has no narrower route vanishes without a
        word."""
        have = self._special(rtroute.BLACKHOLE, protocol)
        stale = [
            rtroute.delete_special(rtroute.BLACKHOLE, each, protocol) for each in sorted(have.difference(networks))
        ]
        missing = [rtroute.add_special(rtroute.BLACKHOLE, each, protocol) for each in sorted(set(networks) - have)]
        self._apply(stale, tolerate=_GONE)
        self._apply(missing, tolerate=(errno.EEXIST,))

    def set_neighbours(self, device: str, neighbours: Mapping[IPv4Address, str]) -> None:
        """Exactly these permanent neighbour entries."""
        index = self._index(device)
        have = self._neighbours(index)
        stale = [rtnl.neighbour(device, index, ip, "", delete=True) for ip in have if ip not in neighbours]
        changed = [rtnl.neighbour(device, index, ip, mac) for ip, mac in neighbours.items() if have.get(ip) != mac]
        self._apply(stale, tolerate=_GONE)
        self._apply(changed)

    def set_fdb(self, device: str, entries: Mapping[str, IPv4Address]) -> None:
        """Exactly these static forwarding entries of a VXLAN device: inner MAC to outer address."""
        index = self._index(device)
        have = self._fdb(index)
        stale = [rtnl.fdb(device, index, mac, ip, delete=True) for mac, ip in have.items() if mac not in entries]
        changed = [rtnl.fdb(device, index, mac, ip) for mac, ip in entries.items() if have.get(mac) != ip]
        self._apply(stale, tolerate=_GONE)
        self._apply(changed)

    def delete_link(self, name: str) -> None:
        """No device of that name."""
        if self._find(name):
            self._apply([rtnl.delete_link(name)], tolerate=_GONE)

    def links(self) -> list[LinkState]:
        """All devices, `lo` included."""
        found = [rtnl.parse_link(reply) for reply in self._socket.dump(rtnl.get_link(""))]
        names = {link.state.index: link.state.name for link in found}
        return [replace(link.state, master=names.get(link.master, "")) for link in found]

    def addresses(self, device: str) -> set[IPv4Interface]:
        """The device's IPv4 addresses."""
        return self._addresses(self._index(device))

    def routes(self, device: str, *, protocol: int = STATIC_ROUTE) -> dict[IPv4Network, Hop]:
        """The routes that `set_routes` would compare with."""
        return self._routes(self._index(device), protocol)

    def blackholes(self, *, protocol: int) -> set[IPv4Network]:
        """The networks that `set_blackholes` would compare with."""
        return self._special(rtroute.BLACKHOLE, protocol)

    def neighbours(self, device: str) -> dict[IPv4Address, str]:
        """The permanent neighbour entries."""
        return self._neighbours(self._index(device))

    def fdb(self, device: str) -> dict[str, IPv4Address]:
        """The static forwarding entries of a VXLAN device."""
        return self._fdb(self._index(device))

    def enter(self, netns: Path) -> NetlinkLinks:
        """The devices of another namespace; the caller closes them."""
        return NetlinkLinks(netns)

    def close(self) -> None:
        """Release the handle."""
        self._socket.close()

    def _replace(self, found: rtnl.Link | None, new: Change) -> None:
        """The new device in place of what was found; another process may be doing the same at this moment."""
        if found:
            self.delete_link(found.state.name)
        self._apply([new], tolerate=(errno.EEXIST,))

    def _adjust(self, name: str, *, mtu: int, mac: str = "", master: tuple[str, int] = ("", 0)) -> None:
        """Up, and of this MTU, MAC and master, touching only what differs."""
        found = self._link(name)
        change = rtnl.set_link(
            name,
            up=not found.state.is_up,
            mtu=mtu if mtu != found.state.mtu else 0,
            mac=mac if mac.lower() != found.state.mac else "",
            master=master if master[1] != found.master else ("", 0),
        )
        if change != rtnl.set_link(name):
            self._apply([change])

    def _settle(self, name: str) -> None:
        """Wait until the device really sends: the kernel's link watch notices a new carrier a moment later.

        Otherwise the first ARP request is lost, and the next one comes after a second.
        """

        def check() -> bool:
            return rtnl.is_operational(self._socket.request(rtnl.get_link(name)))

        wait_until(check, _SETTLE_S, f"carrier of {name}", every_s=0.001)

    def _is_pair(self, here: rtnl.Link, there: rtnl.Link, peer_netns_fd: int) -> bool:
        if here.state.kind != "veth" or there.state.kind != "veth":
            return False
        number = rtnl.parse_netns_id(self._socket.request(rtnl.get_netns_id(peer_netns_fd)))
        return here.behind == there.state.index and there.behind == here.state.index and here.behind_netns == number

    def _find(self, name: str) -> rtnl.Link | None:
        try:
            return self._link(name)
        except KernelError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def _link(self, name: str) -> rtnl.Link:
        try:
            return rtnl.parse_link(self._socket.request(rtnl.get_link(name)))
        except KernelError as error:
            raise KernelError(f"{self._prefix}ip link show {name}: {error}", error.errno) from None

    def _index(self, name: str) -> int:
        return nlmsg.as_int(self._fact(_SIOCGIFINDEX, name))

    def _fact(self, request: int, name: str) -> bytes:
        try:
            return self._socket.interface(request, name)
        except KernelError as error:
            raise KernelError(f"{self._prefix}ip link show {name}: {error}", error.errno) from None

    def _addresses(self, index: int) -> set[IPv4Interface]:
        found = map(rtnl.parse_address, self._socket.dump(rtnl.get_addresses(index)))
        return {address for at, address in found if at == index}

    def _routes(self, index: int, protocol: int) -> dict[IPv4Network, Hop]:
        found = map(rtroute.parse_route, self._socket.dump(rtroute.get_routes(index, protocol)))
        return {network: hop for at, origin, network, hop in found if at == index and origin == protocol}

    def _special(self, kind: int, protocol: int) -> set[IPv4Network]:
        found = map(rtroute.parse_route, self._socket.dump(rtroute.get_special(kind, protocol)))
        return {network for _, _, network, _ in found}

    def _neighbours(self, index: int) -> dict[IPv4Address, str]:
        found = filter(None, map(rtnl.parse_neighbour, self._socket.dump(rtnl.get_neighbours())))
        return {ip: mac for at, ip, mac in found if at == index and ip}

    def _fdb(self, index: int) -> dict[str, IPv4Address]:
        found = filter(None, map(rtnl.parse_neighbour, self._socket.dump(rtnl.get_fdb(index))))
        return {mac: ip for at, ip, mac in found if at == index and ip}

    def _apply(self, changes: Sequence[Change], *, tolerate: Sequence[int] = ()) -> list[int]:
        """Do all; each one's errno. The first that is not tolerated is raised, once all have been tried."""
        if not changes:
            return []
        for change in changes:
            log.info("%s%s", self._prefix, change.command)
        answers = self._socket.execute([change.message for change in changes])
        for change, error in zip(changes, answers, strict=True):
            if error and error.errno not in tolerate:
                raise KernelError(f"{self._prefix}{change.command}: {error}", error.errno)
        return [error.errno if error else 0 for error in answers]


@contextmanager
def _opened(netns: Path) -> Iterator[int]:
    try:
        file = netns.open("rb")
    except OSError as error:
        raise KernelError(f"network namespace {netns}: {error.strerror}", error.errno or 0) from None
    with file:
        yield file.fileno()


@contextmanager
def _closing(links: NetlinkLinks) -> Iterator[NetlinkLinks]:
    try:
        yield links
    finally:
        links.close()
