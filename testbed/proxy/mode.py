"""A proxy mode: one way of having a node's kernel serve virtual ports. The seam between `Proxier` and the modes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from testbed.api.objects import Key
from testbed.kernel.conntrack import Flow
from testbed.kernel.ipvs import Ipvs
from testbed.kernel.links import Links, Nft
from testbed.proxy.virtualport import Here, Ports, VirtualPort


class Flows(Protocol):
    """What is asked of connection tracking; see `kernel.conntrack.Conntrack`."""

    def udp_flows(self) -> list[Flow]:
        """All UDP entries of IPv4."""
        ...

    def delete(self, flows: Iterable[Flow]) -> None:
        """Forget these flows."""
        ...


class Iptables(Protocol):
    """The iptables of one network namespace; see `kernel.iptables`."""

    def restore(self, script: str) -> None:
        """`iptables-restore --noflush` of the script: each table of it in one transaction, or KernelError and none of
        that table and those behind it."""
        ...

    def save(self, table: str) -> str:
        """`iptables-save -c -t TABLE`; empty where nobody has ever used that table."""
        ...

    def recent(self, name: str) -> list[str]:
        """The addresses that the list of that name remembers (`-m recent`), one that came last first."""
        ...

    def was_edited(self) -> bool:
        """Whether anybody else may have changed the namespace's rules since the last call of this method."""
        ...


@dataclass(frozen=True)
class Doors:
    """The doors to one node's kernel that modes use."""

    nft: Nft
    iptables: Iptables
    ipvs: Ipvs
    links: Links


class Mode(Protocol):
    """One way of serving. Plain synchronous code, called by one thread at a time.

    Every method but `teardown` may raise KernelError, after which `load` comes next. Established connections survive
    `load`, `change`, and the coming and going of modes beside each other.
    """

    def load(self, ports: Ports, here: Here) -> None:
        """Serve exactly these on this node, whatever of this mode's was there before: by us, by a predecessor that
        was killed, or edited by hand."""
        ...

    def change(self, before: Ports, after: Ports, which: Collection[Key]) -> bool:
        """From what was left by the last call, `before`, to `after`, where only the Services `which` differ.

        Costs what the change costs, not the table. False where that is not possible and `load` must do it. Called
        every few seconds with no Services too, for what a mode has to look after in time.
        """
        ...

    def was_edited(self) -> bool:
        """Whether somebody else may have changed what is there since the last call of this method."""
        ...

    def differences(self, ports: Ports) -> list[str]:
        """What the kernel holds (`- …`) against what it should (`+ …`), a line each; empty where all is well.

        Reads everything, and may take its time.
        """
        ...

    def explain(self, port: VirtualPort) -> list[str]:
        """The way of a new connection to this port through what the kernel holds now, a sentence to a line, with the
        names of chains, maps and elements, affinity entries and counters where the mode has them."""
        ...

    def teardown(self) -> bool:
        """Serve nothing any more, whoever made what is there; connections go on. Good also where it was never loaded.

        False while something must stay for connections that drain; it is then called again, every few seconds.
        """
        ...
