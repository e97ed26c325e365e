"""The rules of one node, made true: masquerading and Services."""

from __future__ import annotations

import logging

from testbed.network import masquerade
from testbed.node.handles import Handles
from testbed.node.network import Place
from testbed.proxy import MODES
from testbed.proxy.mode import Mode
from testbed.proxy.proxier import Proxier, Synced
from testbed.proxy.servicemap import Location
from testbed.proxy.services import Snapshot
from testbed.proxy.virtualport import Here

log = logging.getLogger(__name__)


class NodeRules:
    """Plain synchronous code, called by one thread at a time."""

    def __init__(self, handles: Handles) -> None:
        self._nft = handles.nft
        self._proxier = Proxier(handles.doors, handles.conntrack, MODES)
        self._masquerade = ""
        self.edits = 0
        """How often somebody else was found to have been at the rules."""

    @property
    def sequence(self) -> int:
        """Of the snapshot of Services that the kernel holds; 0 where nobody knows what it holds."""
        return self._proxier.sequence

    @property
    def mode(self) -> Mode | None:
        """The one that serves; None before the first sync."""
        return self._proxier.mode

    def sync(self, place: Place, tunnel: str, wanted: Snapshot) -> Synced:
        """Load what differs; everything, where somebody else has been at this namespace's rules. Raises KernelError."""
        if self._proxier.was_edited():
            log.warning("node %s: somebody has changed its rules, loading all of ours again", place.node.name)
            self._masquerade = ""
            self.edits += 1
        script = masquerade.render(place.spec.network.pod_cidr, tunnel)
        if script != self._masquerade:
            self._nft.load(script)
            self._masquerade = script
        return self._proxier.sync(wanted, here(place), place.spec.node(place.node.name).proxy)


def location(place: Place) -> Location:
    """Where the node is, for the choice of endpoints."""
    return Location(place.node.name, place.node.zone)


def here(place: Place) -> Here:
    """What a proxy mode must know of the node."""
    services = place.spec.services
    return Here(
        node=place.node.name,
        address=place.node.underlay,
        pod_cidr=place.node.pod_cidr,
        cluster_cidr=place.spec.network.pod_cidr,
        service_cidr=services.cidr,
        zone=place.node.zone,
        node_port_addresses=services.node_port_addresses,
    )
