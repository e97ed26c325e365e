"""The pod network: how a pod is wired to its node, and one file per way to carry packets between nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from testbed.kernel.links import Links
from testbed.network.backend import Backend
from testbed.network.hostgw import HostGatewayBackend
from testbed.network.nodenet import NodeNet
from testbed.network.vxlan import VxlanBackend
from testbed.topology.spec import NetworkSpec

BACKENDS: Mapping[str, Callable[[Links, NodeNet, NetworkSpec], Backend]] = {
    "vxlan": VxlanBackend,
    "host-gw": lambda links, _node, _network: HostGatewayBackend(links),
}
