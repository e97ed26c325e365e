"""The pod network of one node, made true: bridge, backend, routes to every peer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from testbed.errors import BadInput, KernelError
from testbed.kernel.links import Links
from testbed.network import BACKENDS, podlink
from testbed.network.backend import Backend
from testbed.network.nodenet import NodeNet
from testbed.topology.spec import ClusterSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a node stands: itself, every other node, and the settings of all."""

    node: NodeNet
    peers: Sequence[NodeNet]
    spec: ClusterSpec


class NodeNetwork:
    """Plain synchronous code, called by one thread at a time."""

    def __init__(self, links: Links, ensure_sysctls: Callable[[], None]) -> None:
        self._links = links
        self._ensure_sysctls = ensure_sysctls
        self._backend: Backend | None = None
        self._made_for: object = None

    def sync(self, place: Place) -> str:
        """Reach exactly the place's peers; the name of the tunnel's device, empty where there is none.

        After a change of settings the old backend goes before the new one comes. Raises KernelError, BadInput.
        """
        podlink.ensure_bridge(self._links, place.node.pod_cidr, place.spec.network.pod_mtu)
        # Packets for the pods of a node that has gone must not leave by the default route.
        self._links.ensure_unreachable(place.spec.network.pod_cidr)
        backend = self._chosen(place)
        backend.sync(place.peers)
        return backend.device

    def _chosen(self, place: Place) -> Backend:
        settings = (place.node, place.spec.network)
        if self._backend is None or self._made_for != settings:
            self._backend, self._made_for = None, settings
            self._prepare()
            self._backend = self._replace(place)
        return self._backend

    def _prepare(self) -> None:
        try:
            self._ensure_sysctls()
        except KernelError as error:  # a container's /proc/sys is read-only: whoever made it has set them, or not
            log.warning("%s", error)

    def _replace(self, place: Place) -> Backend:
        """The backend of the settings; every other one leaves nothing behind, whoever made it."""
        wanted = place.spec.network.backend
        if wanted not in BACKENDS:
            raise BadInput(f"network backend {wanted!r} is none of {', '.join(sorted(BACKENDS))}")
        for name, make in BACKENDS.items():
            if name != wanted:
                make(self._links, place.node, place.spec.network).teardown()
        return BACKENDS[wanted](self._links, place.node, place.spec.network)
