"""One way to carry pod packets from node to node."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from testbed.network.nodenet import NodeNet

UNDERLAY_DEVICE = "eth0"
PEER_ROUTES = 84
"""The origin (ip-route(8), "protocol") of a backend's routes through the underlay device, which has others too."""


class Backend(Protocol):
    """Devices and routes of one node. All methods may be called again and again; KernelError where the kernel refuses.

    The table of a node grows by the same few entries for each other node, and by nothing for a pod.
    """

    device: str
    """The tunnel's device, empty where there is none."""

    def setup(self) -> None:
        """What is needed before there are peers."""
        ...

    def sync(self, peers: Collection[NodeNet]) -> None:
        """Reach exactly these: every other node, every time, whatever has become of the device meanwhile."""
        ...

    def teardown(self) -> None:
        """Leave nothing behind."""
        ...
