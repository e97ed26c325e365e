"""Plain routing: the underlay carries pod packets as they are, because every node is on the same link.

```
pod ─ cni0 ─ route 10.244.2.0/24 via 198.18.0.3 dev eth0 ─ eth0 ─ … ─ eth0 ─ cni0 ─ pod
```

One route for each peer, and no byte more than the packet.
"""

from __future__ import annotations

from collections.abc import Collection

from testbed.kernel.links import Hop, Links
from testbed.network.backend import PEER_ROUTES, UNDERLAY_DEVICE
from testbed.network.nodenet import NodeNet


class HostGatewayBackend:
    """The routes of one node; see `Backend`."""

    device = ""

    def __init__(self, links: Links) -> None:
        self._links = links

    def setup(self) -> None:
        """Nothing: the underlay device is there."""

    def sync(self, peers: Collection[NodeNet]) -> None:
        """One route for each peer."""
        routes = {peer.pod_cidr: Hop(via=peer.underlay) for peer in peers}
        self._links.set_routes(UNDERLAY_DEVICE, routes, protocol=PEER_ROUTES)

    def teardown(self) -> None:
        """The routes go; others through the same device stay."""
        self._links.set_routes(UNDERLAY_DEVICE, {}, protocol=PEER_ROUTES)
