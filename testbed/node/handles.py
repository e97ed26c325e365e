"""Everything through which one node's kernel is reached, opened inside its namespace once and for all."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from testbed.kernel import probe
from testbed.kernel.conntrack import Conntrack
from testbed.kernel.iptables import CommandIptables
from testbed.kernel.ipvs import NetlinkIpvs
from testbed.kernel.links import Links, Nft
from testbed.kernel.listening import ANY, listen
from testbed.kernel.monitor import LossMonitor
from testbed.kernel.netlink import NetlinkLinks
from testbed.kernel.nft import LibNft
from testbed.network.podlink import POD_DEVICES
from testbed.network.sysctls import ensure_sysctls
from testbed.proxy.mode import Doors, Flows


class Echo(Protocol):
    """Full-size packets; see `kernel.probe.echo`."""

    def __call__(
        self, source: IPv4Address, targets: Collection[IPv4Address], size: int, *, timeout_s: float
    ) -> dict[IPv4Address, str]:
        """Those that did not answer, with the reason."""
        ...


class Losses(Protocol):
    """What the kernel tells of its own accord; see `kernel.monitor.LossMonitor`."""

    def fileno(self) -> int:
        """For the event loop; -1 where there is nothing to listen to."""
        ...

    def lost(self) -> bool:
        """Whether something has gone since the last call."""
        ...


class Listen(Protocol):
    """Opens listening TCP sockets; see `kernel.listening.listen`."""

    def __call__(self, port: int, address: IPv4Address = ANY) -> socket.socket:
        """KernelError where the port is taken."""
        ...


@dataclass(frozen=True)
class Handles:
    """One node's kernel."""

    doors: Doors
    """What proxy modes use, `links` and `nft` among them."""
    conntrack: Flows
    losses: Losses
    echo: Echo
    listen: Listen
    ensure_sysctls: Callable[[], None]
    is_current: Callable[[], bool]
    """Whether the node still has the namespace in which these were opened."""
    close: Callable[[], None]

    @property
    def links(self) -> Links:
        """Its devices, addresses and routes."""
        return self.doors.links

    @property
    def nft(self) -> Nft:
        """Its nftables."""
        return self.doors.nft


def open_handles(netns: Path | None) -> Handles:
    """The kernel of the node whose namespace is at `netns`, or of the one this process lives in."""
    opened = _identity(netns)
    with ExitStack() as undo:
        nft = undo.enter_context(closing(LibNft(netns)))
        return Handles(
            doors=Doors(
                nft=nft,
                iptables=CommandIptables(nft, netns),
                ipvs=undo.enter_context(closing(NetlinkIpvs(netns))),
                links=undo.enter_context(closing(NetlinkLinks(netns))),
            ),
            conntrack=undo.enter_context(closing(Conntrack(netns))),
            losses=undo.enter_context(closing(LossMonitor(netns, ignored=POD_DEVICES))),
            echo=partial(probe.echo, netns),
            listen=partial(listen, netns),
            ensure_sysctls=partial(ensure_sysctls, netns),
            is_current=lambda: _identity(netns) == opened,
            close=undo.pop_all().close,
        )


def _identity(netns: Path | None) -> int:
    """A namespace's inode; 0 for a process's own, which it never changes, and for one that is gone."""
    try:
        return netns.stat().st_ino if netns else 0
    except FileNotFoundError:
        return 0
