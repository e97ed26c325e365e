"""The path of two pods on two nodes over VXLAN, wired by hand: nothing but `ip` and `bridge`, as in a textbook.

```
b-pa ── b-a (bridge, vxlan) ── b-switch (bridge) ── b-b (vxlan, bridge) ── b-pb
```
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.command import run


@dataclass(frozen=True)
class Side:
    """One node with its one pod."""

    name: str
    underlay: str
    network: str
    """The first three numbers of its pods' addresses."""
    vtep_mac: str

    @property
    def pod(self) -> str:
        """The pod's address."""
        return f"{self.network}.2"


@dataclass(frozen=True)
class Wired:
    """What it takes to use the path: both pods' namespaces, the address of the second pod, and the nodes'."""

    client_netns: Path
    server_netns: Path
    address: str
    nodes: tuple[Path, ...]


A = Side("a", "198.18.0.11", "10.244.0", "02:00:00:00:00:0a")
B = Side("b", "198.18.0.12", "10.244.1", "02:00:00:00:00:0b")


@contextmanager
def path(mtu: int, underlay_mtu: int = 1500) -> Iterator[Wired]:
    """The path, for as long as the body runs. Needs root."""
    prefix = f"b{os.getpid()}"
    try:
        _batch("", [f"netns add {prefix}-{place}" for place in ("switch", "a", "b", "pa", "pb")])
        _switch(prefix)
        for side, peer in ((A, B), (B, A)):
            _node(prefix, side, peer, mtu, underlay_mtu)
        pa, pb, a, b = (Path(f"/run/netns/{prefix}-{place}") for place in ("pa", "pb", "a", "b"))
        yield Wired(pa, pb, B.pod, (a, b))
    finally:
        for place in ("pa", "pb", "a", "b", "switch"):
            run("ip", "netns", "delete", f"{prefix}-{place}")


def _switch(prefix: str) -> None:
    _batch(
        f"{prefix}-switch",
        [
            "link set lo up",
            "link add underlay type bridge",
            "address add 198.18.0.1/16 dev underlay",
            "link set underlay up",
        ],
    )


def _node(prefix: str, side: Side, peer: Side, mtu: int, underlay_mtu: int) -> None:
    node, pod = f"{prefix}-{side.name}", f"{prefix}-p{side.name}"
    _batch(
        f"{prefix}-switch",
        [
            f"link add n-{side.name} mtu {underlay_mtu} type veth peer name eth0 mtu {underlay_mtu} netns {node}",
            f"link set n-{side.name} master underlay up",
        ],
    )
    _batch(
        node,
        [
            "link set lo up",
            f"address add {side.underlay}/16 dev eth0",
            "link set eth0 up",
            f"link add cni0 mtu {mtu} type bridge",
            f"address add {side.network}.1/24 dev cni0",
            "link set cni0 up",
            f"link add veth0 mtu {mtu} type veth peer name eth0 mtu {mtu} netns {pod}",
            "link set veth0 master cni0 up",
            f"link add flannel.1 mtu {mtu} address {side.vtep_mac} type vxlan id 1 local {side.underlay} dev eth0"
            " dstport 8472 nolearning",
            f"address add {side.network}.0/32 dev flannel.1",
            "link set flannel.1 up",
            f"neighbour add {peer.network}.0 lladdr {peer.vtep_mac} dev flannel.1 nud permanent",
        ],
    )
    run("ip", "netns", "exec", node, "sysctl", "-qw", "net.ipv4.ip_forward=1").expect()
    run("bridge", "-n", node, "fdb", "add", peer.vtep_mac, "dev", "flannel.1", "dst", peer.underlay).expect()
    _batch(node, [f"route add {peer.network}.0/24 via {peer.network}.0 dev flannel.1 onlink"])
    _batch(
        pod,
        [
            "link set lo up",
            f"address add {side.pod}/32 dev eth0",
            "link set eth0 up",
            f"route add default via {side.network}.1 dev eth0 onlink",
        ],
    )


def _batch(netns: str, commands: list[str]) -> None:
    """`ip -batch`, in a namespace."""
    inside = ["-n", netns] if netns else []
    run("ip", *inside, "-batch", "-", stdin="\n".join(commands)).expect()
