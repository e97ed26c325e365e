"""VXLAN as flannel does it: no learning, no flooding, no multicast; each peer is three entries written beforehand.

```
pod ─ cni0 ─ route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink        which peer
             neighbour 10.244.2.0 lladdr <its VTEP MAC> permanent            which inner MAC
             fdb <its VTEP MAC> dst 198.18.0.3                               which outer address
     ─ flannel.1 ─ UDP 8472, 50 bytes more ─ eth0 ─ … ─ eth0 ─ flannel.1 ─ cni0 ─ pod
```

They are written in the order neighbour, forwarding entry, route: with the route first the kernel would ask for the
neighbour's MAC in the tunnel, where nobody answers. The device's MAC is the node's own for ever, or peers would send to
one that is gone; a device that was deleted is made again and gets all entries, not only those that changed.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Interface

from testbed.kernel.links import Hop, Links, Vxlan
from testbed.network.backend import UNDERLAY_DEVICE
from testbed.network.nodenet import NodeNet
from testbed.topology.spec import NetworkSpec


class VxlanBackend:
    """The tunnel of one node; see `Backend`."""

    def __init__(self, links: Links, node: NodeNet, network: NetworkSpec) -> None:
        self._links, self._node = links, node
        self.device = f"flannel.{network.vni}"
        self._vxlan = Vxlan(
            vni=network.vni,
            local=node.underlay,
            port=network.port,
            device=UNDERLAY_DEVICE,
            mtu=network.pod_mtu,
            mac=node.vtep_mac,
        )

    def setup(self) -> None:
        """The tunnel's device; its address, a /32, is the source of what the node itself sends to remote pods."""
        self._links.ensure_vxlan(self.device, self._vxlan)
        self._links.set_addresses(self.device, [IPv4Interface((self._node.vtep, 32))])

    def sync(self, peers: Collection[NodeNet]) -> None:
        """One neighbour, one forwarding entry and one route for each peer."""
        self.setup()
        self._links.set_neighbours(self.device, {peer.vtep: peer.vtep_mac for peer in peers})
        self._links.set_fdb(self.device, {peer.vtep_mac: peer.underlay for peer in peers})
        self._links.set_routes(self.device, {peer.pod_cidr: Hop(via=peer.vtep, onlink=True) for peer in peers})

    def teardown(self) -> None:
        """The device goes, and everything that was written on it."""
        self._links.delete_link(self.device)
