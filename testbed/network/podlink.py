"""How a pod is wired to its node: a veth pair, one end in the pod, the other a port of the node's bridge.

```
pod netns                      node netns
eth0 10.244.1.7/32 ── veth1a2b3c4d ── cni0 10.244.1.1/24 ── route, overlay or underlay
  default via 10.244.1.1 onlink
```

The pod's address is a /32, so also its neighbours on the same bridge are reached through the node's IP stack: service
rules and policies see every packet, and no bridge-netfilter is needed. The bridge's address stays on a MAC derived from
it, or pods would lose their gateway whenever the bridge's ports change; the pod's MAC is derived from its address too,
so an address that is given to another pod is not blackholed by a neighbour entry of the old one.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from testbed.errors import BadInput
from testbed.kernel.links import Hop, Links, Peer
from testbed.topology.spec import NetworkSpec, NodeSpec

BRIDGE = "cni0"
POD_DEVICE = "eth0"
POD_DEVICES = "veth"
"""How the names of the nodes' ends begin."""
_EVERYWHERE = IPv4Network("0.0.0.0/0")


def ensure_node(links: Links, node: NodeSpec, network: NetworkSpec) -> None:
    """The node's bridge with the gateway address of its pods; a running one is left as it is."""
    if node.pod_cidr is None:
        raise BadInput(f"node {node.name} has no pod CIDR")
    ensure_bridge(links, node.pod_cidr, network.pod_mtu)


def ensure_bridge(links: Links, pod_cidr: IPv4Network, pod_mtu: int) -> None:
    """`ensure_node` by its two facts. Pods that lost their bridge are plugged into the new one."""
    address = gateway(pod_cidr)
    links.ensure_bridge(BRIDGE, mtu=pod_mtu, mac=stable_mac(address))
    links.set_addresses(BRIDGE, [IPv4Interface((address, pod_cidr.prefixlen))])
    for link in links.links():
        if link.name.startswith(POD_DEVICES) and not link.master:
            links.ensure_port(BRIDGE, link.name)


def attach(links: Links, pod_netns: Path, *, device: str, address: IPv4Address, gateway: IPv4Address, mtu: int) -> None:
    """Wire the pod's namespace to the bridge of the node that `links` speaks to; again is fine.

    `device` is the end in the node. Both ends, and the pod's loopback, are up afterwards. Under 3 ms.
    """
    peer = Peer(POD_DEVICE, pod_netns, stable_mac(address))
    links.ensure_veth(device, peer, mtu=mtu, master=BRIDGE)
    pod = links.enter(pod_netns)
    try:
        pod.ensure_up("lo")
        pod.set_addresses(POD_DEVICE, [IPv4Interface((address, 32))])
        # Known beforehand and permanent: nobody has to ask, and it does not count against the machine's neighbour table
        # (gc_thresh3, 1024 for all namespaces together), which 20 nodes with 200 pods would otherwise nearly fill.
        pod.set_neighbours(POD_DEVICE, {gateway: stable_mac(gateway)})
        pod.set_routes(POD_DEVICE, {_EVERYWHERE: Hop(via=gateway, onlink=True)})
    finally:
        pod.close()


def detach(links: Links, device: str) -> None:
    """Take the pod's link away, both ends; again is fine."""
    links.delete_link(device)


def gateway(pod_cidr: IPv4Network) -> IPv4Address:
    """The bridge's address in a node's pod CIDR: the first one."""
    return pod_cidr.network_address + 1


def stable_mac(address: IPv4Address) -> str:
    """A locally administered MAC that says whose it is: 0a:58 and the four bytes of the address."""
    return f"0a:58:{address.packed.hex(':')}"
