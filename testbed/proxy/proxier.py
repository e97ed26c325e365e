"""Puts virtual ports into the kernel of one node, and keeps them there.

Given the whole each time, it loads the difference to what it loaded last. At start, after a stranger's edit and after
any refusal it loads everything, replacing what is there in one transaction: connections that exist follow conntrack
and notice nothing.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network
from typing import Protocol

from testbed.api.objects import Key
from testbed.errors import KernelError
from testbed.kernel.conntrack import Flow
from testbed.kernel.links import Nft
from testbed.proxy import nftables
from testbed.proxy.conntrack import stale_flows
from testbed.proxy.servicemap import VirtualPort
from testbed.proxy.services import Ports

log = logging.getLogger(__name__)

_CHUNK = 6
"""Statements to a transaction where a large one is refused: about 1,500 elements, a third of what fits into the
socket buffer that the kernel allows an unprivileged user by default (net.core.wmem_max, 208 KiB, doubled)."""


class UdpFlows(Protocol):
    """What the proxier asks of connection tracking; see `kernel.conntrack.Conntrack`."""

    def udp_flows(self) -> list[Flow]:
        """All UDP entries of IPv4."""
        ...

    def delete(self, flows: Iterable[Flow]) -> None:
        """Forget these flows."""
        ...


class Proxier:
    """The service rules of one node. Plain synchronous code, called by one thread at a time."""

    def __init__(self, nft: Nft, conntrack: UdpFlows) -> None:
        self._nft, self._conntrack = nft, conntrack
        self._pod_cidr: IPv4Network | None = None
        self._table = nftables.TABLE
        self._loaded: Ports | None = None
        self._capacity = 0

    def sync(self, ports: Ports, pod_cidr: IPv4Network) -> None:
        """Make the kernel serve exactly these, on a node whose pods are in `pod_cidr`.

        KernelError where it refuses, after which the next call loads everything.
        """
        before = self._loaded if pod_cidr == self._pod_cidr else None
        self._loaded, self._pod_cidr = None, pod_cidr
        changed = list(ports) if before is None else [which for which in ports if before.get(which) is not ports[which]]
        gone = [] if before is None else [which for which in before if which not in ports]
        if before is None or not self._load_difference(before, ports, [*changed, *gone]):
            self._load_all(ports, pod_cidr)
        self._loaded = ports
        self._forget_stale_flows([port for which in changed for port in ports[which]])

    def reload(self) -> None:
        """Load everything at the next `sync`, because somebody has been at the rules."""
        self._loaded = None

    def teardown(self) -> None:
        """Leave no rule behind."""
        self._loaded = None
        self._nft.load(nftables.delete(nftables.TABLE) + nftables.delete(nftables.NEXT_TABLE))

    def _load_difference(self, before: Ports, after: Ports, which: list[Key]) -> bool:
        old = nftables.elements(port for each in which for port in before.get(each, ()))
        new = nftables.elements(port for each in which for port in after.get(each, ()))
        statements = nftables.change(self._table, old, new)
        if not statements:
            return True
        if nftables.capacity(new) > self._capacity:
            return False
        try:
            self._load(statements)
        except KernelError as error:
            log.warning("the rules are not as they were left, loading all of them: %s", error)
            return False
        return True

    def _load(self, statements: list[str]) -> None:
        try:
            self._nft.load("".join(statements))
        except KernelError as error:
            if error.errno != errno.EMSGSIZE or len(statements) <= _CHUNK:
                raise
            for chunk in _chunks(statements):
                self._nft.load(chunk)

    def _load_all(self, ports: Ports, pod_cidr: IPv4Network) -> None:
        every = [port for each in ports.values() for port in each]
        self._table = nftables.TABLE
        try:
            self._nft.load(nftables.render(every, pod_cidr))
        except KernelError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._load_all_in_pieces(every, pod_cidr)
        self._capacity = nftables.capacity(nftables.elements(every))

    def _load_all_in_pieces(self, ports: list[VirtualPort], pod_cidr: IPv4Network) -> None:
        """Put a second table together beside the first, and let it take over in one last transaction."""
        is_first_in_use = bool(self._nft.list(f"chain ip {nftables.TABLE} dispatch"))
        old, new = nftables.TABLE, nftables.NEXT_TABLE
        if not is_first_in_use:
            old, new = new, old
        wanted = nftables.elements(ports)
        start = nftables.delete(new) + nftables.objects(new, pod_cidr, nftables.capacity(wanted))
        for chunk in [start, *_chunks(nftables.change(new, {}, wanted))]:
            self._nft.load(chunk)
        self._nft.load(nftables.delete(old) + nftables.hooks(new))
        self._table = new

    def _forget_stale_flows(self, ports: list[VirtualPort]) -> None:
        if any(port.protocol == "udp" and port.serving for port in ports):
            self._conntrack.delete(stale_flows(self._conntrack.udp_flows(), ports))


def _chunks(statements: list[str]) -> Iterator[str]:
    for start in range(0, len(statements), _CHUNK):
        yield "".join(statements[start : start + _CHUNK])
