"""What the testbed asks of the kernel's devices, addresses, routes and neighbours.

One object speaks to one network namespace. The verbs say what they leave behind: `ensure_` at least this, `set_`
exactly these, `delete_` not this. All may be called again and again; none asks first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Protocol

STATIC_ROUTE = 4
"""RTPROT_STATIC (linux/rtnetlink.h): the origin of routes that were set once and for all."""


@dataclass(frozen=True)
class Hop:
    """The next hop of a route; without `via` the destination is on the link itself."""

    via: IPv4Address | None = None
    others: tuple[IPv4Address, ...] = ()
    """Further gateways through the same device: each flow takes one of all of them, by a hash (ECMP, RFC 2992)."""
    onlink: bool = False
    source: IPv4Address | None = None
    mtu: int = 0


@dataclass(frozen=True)
class Peer:
    """The other end of a veth: its name, and the namespace it lives in (a path such as /proc/PID/ns/net)."""

    name: str
    netns: Path
    mac: str = ""


@dataclass(frozen=True)
class Vxlan:
    """A VXLAN device's parameters (RFC 7348). `local` is the outer source, `device` the underlay device."""

    vni: int
    local: IPv4Address
    port: int
    device: str
    mtu: int
    mac: str


@dataclass(frozen=True)
class LinkState:
    """A device as the kernel shows it."""

    name: str
    kind: str
    index: int
    mtu: int
    mac: str
    is_up: bool
    master: str = ""


class Links(Protocol):
    """Devices of one network namespace. Raises KernelError with the kernel's errno."""

    def ensure_bridge(self, name: str, *, mtu: int, mac: str = "") -> None:
        """A Linux bridge, up, without spanning tree, of exactly this MTU."""
        ...

    def ensure_dummy(self, name: str) -> None:
        """A device of no use but to bear addresses, up; where the kernel has no dummy devices, a bridge without ports.

        One that has that name stays, of whatever type.
        """
        ...

    def ensure_veth(self, name: str, peer: Peer, *, mtu: int, mac: str = "", master: str = "") -> None:
        """A veth pair: this end here, up; the other in the peer's namespace, up. Both ends have this MTU.

        An end that is left over without its peer is made anew.
        """
        ...

    def ensure_vxlan(self, name: str, vxlan: Vxlan) -> None:
        """A VXLAN device, up, nolearning; one with other parameters is replaced."""
        ...

    def ensure_port(self, bridge: str, name: str) -> None:
        """The device is a port of the bridge."""
        ...

    def ensure_up(self, name: str) -> None:
        """The device is up (`lo` too)."""
        ...

    def set_addresses(self, device: str, addresses: Iterable[IPv4Interface]) -> None:
        """Exactly these IPv4 addresses."""
        ...

    def ensure_addresses(self, device: str, addresses: Iterable[IPv4Interface]) -> None:
        """At least these IPv4 addresses: costs what they cost, however many the device has."""
        ...

    def delete_addresses(self, device: str, addresses: Iterable[IPv4Interface]) -> None:
        """Not these IPv4 addresses; the device may be gone too."""
        ...

    def set_routes(self, device: str, routes: Mapping[IPv4Network, Hop], *, protocol: int = STATIC_ROUTE) -> None:
        """Exactly these routes of that origin through the device (main table); others to the same place give way.

        Two owners of routes through one device (the agent's default route and a backend's routes to peers, both
        through eth0) use two protocols (ip-route(8), "protocol"), and leave each other's alone.
        """
        ...

    def ensure_unreachable(self, network: IPv4Network) -> None:
        """What is sent there and has no narrower route is refused (EHOSTUNREACH, ICMP), not given to the gateway."""
        ...

    def set_blackholes(self, networks: Collection[IPv4Network], *, protocol: int) -> None:
        """Exactly these networks of that origin: what is sent there and has no narrower route vanishes without a
        word."""
        ...

    def set_neighbours(self, device: str, neighbours: Mapping[IPv4Address, str]) -> None:
        """Exactly these permanent neighbour entries."""
        ...

    def set_fdb(self, device: str, entries: Mapping[str, IPv4Address]) -> None:
        """Exactly these static forwarding entries of a VXLAN device: inner MAC to outer address."""
        ...

    def delete_link(self, name: str) -> None:
        """No device of that name."""
        ...

    def links(self) -> list[LinkState]:
        """All devices, `lo` included."""
        ...

    def addresses(self, device: str) -> set[IPv4Interface]:
        """The device's IPv4 addresses."""
        ...

    def routes(self, device: str, *, protocol: int = STATIC_ROUTE) -> dict[IPv4Network, Hop]:
        """The routes that `set_routes` would compare with."""
        ...

    def blackholes(self, *, protocol: int) -> set[IPv4Network]:
        """The networks that `set_blackholes` would compare with."""
        ...

    def neighbours(self, device: str) -> dict[IPv4Address, str]:
        """The permanent neighbour entries."""
        ...

    def fdb(self, device: str) -> dict[str, IPv4Address]:
        """The static forwarding entries of a VXLAN device."""
        ...

    def enter(self, netns: Path) -> Links:
        """The devices of another namespace; the caller closes them."""
        ...

    def close(self) -> None:
        """Release the handle."""
        ...


class Nft(Protocol):
    """The nftables of one network namespace."""

    def load(self, script: str) -> None:
        """All of the script in one transaction, or KernelError and none of it."""
        ...

    def list(self, what: str = "ruleset", *, terse: bool = False) -> str:
        """`nft list WHAT`, with `terse` without the elements; empty where there is no such thing."""
        ...

    def was_edited(self) -> bool:
        """Whether anybody else has changed the namespace's rules since the last call of this method."""
        ...

    def close(self) -> None:
        """Release the handle."""
        ...
