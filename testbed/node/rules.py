"""The rules of one node, made true: masquerading and Services."""

from __future__ import annotations

import logging

from testbed.kernel.links import Nft
from testbed.network import masquerade
from testbed.node.network import Place
from testbed.proxy.proxier import Proxier, UdpFlows
from testbed.proxy.services import Ports

log = logging.getLogger(__name__)


class NodeRules:
    """Plain synchronous code, called by one thread at a time."""

    def __init__(self, nft: Nft, conntrack: UdpFlows) -> None:
        self._nft = nft
        self._proxier = Proxier(nft, conntrack)
        self._masquerade = ""

    def sync(self, place: Place, tunnel: str, ports: Ports) -> None:
        """Load what differs; everything, where somebody else has been at this namespace's rules. Raises KernelError."""
        if self._nft.was_edited():
            log.warning("node %s: somebody has changed its rules, loading all of ours again", place.node.name)
            self._masquerade = ""
            self._proxier.reload()
        script = masquerade.render(place.spec.network.pod_cidr, tunnel)
        if script != self._masquerade:
            self._nft.load(script)
            self._masquerade = script
        self._proxier.sync(ports, place.node.pod_cidr)
