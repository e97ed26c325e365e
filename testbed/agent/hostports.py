"""hostPort: the agent keeps each node's table of host ports in line with the pods on it (`network.hostports`).

The whole table is loaded when a pod with host ports comes, changes its address or goes, when the node has come back in
another namespace, and where somebody has edited it. A node without such pods has no table: one that was left by an
agent before this one is removed. To the node's daemon each load is an edit by a stranger, after which it loads its own
rules again at its next look, packets flowing on; so nothing is loaded that is there already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from testbed.api.objects import Key, Object, is_deleting, key, metadata, spec, status
from testbed.client.informer import Informer
from testbed.errors import KernelError
from testbed.kernel import netns
from testbed.kernel.conntrack import Conntrack, Flow
from testbed.kernel.links import Nft
from testbed.kernel.nft import LibNft
from testbed.network.hostports import REMOVE, TABLE, HostPort, render, stale_flows
from testbed.network.podlink import gateway
from testbed.topology.spec import NodeSpec

log = logging.getLogger(__name__)

RESYNC_S = 10.0
"""How often it is looked whether the tables are as they were loaded."""
ANY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - what a pod's hostIP may say


class Flows(Protocol):
    """See kernel.conntrack."""

    def udp_flows(self) -> list[Flow]:
        """All UDP entries."""
        ...

    def delete(self, flows: Iterable[Flow]) -> None:
        """Forget these."""
        ...

    def close(self) -> None:
        """Release the handle."""
        ...


@dataclass(frozen=True)
class Doors:
    """How the agent reaches a node's kernel; `place` is the node's namespace, None while there is none."""

    place: Callable[[str], Path | None]
    nft: Callable[[Path], Nft] = LibNft
    flows: Callable[[Path], Flows] = Conntrack


class HostPorts:
    """The host ports of all nodes of one host."""

    def __init__(self, pods: Informer, doors: Doors) -> None:
        self._pods = pods
        self._doors = doors
        self._nodes: dict[str, NodeSpec] = {}
        self._tables: dict[str, NodeTable] = {}
        self._changed = asyncio.Event()
        pods.observe(self._pod_changed)

    def follow(self, nodes: Iterable[NodeSpec]) -> None:
        """The nodes that are wired now: workers, as pods of others have no network of their own."""
        self._nodes = {node.name: node for node in nodes if node.pod_cidr}
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled. What cannot be loaded is told, and tried again at the next resync."""
        await self._pods.synced.wait()
        while True:
            self._changed.clear()
            for name in self._tables.keys() - self._nodes.keys():
                self._tables.pop(name).close()
            wanted = ports_by_node(self._pods.items.values())
            for node in tuple(self._nodes.values()):
                table = self._tables.setdefault(node.name, NodeTable(node, self._doors))
                try:
                    await asyncio.to_thread(table.sync, wanted.get(node.name, ()))
                except KernelError as error:
                    log.warning("host ports of node %s: %s", node.name, error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), RESYNC_S)

    def _pod_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        if _matters(old) != _matters(new):
            self._changed.set()


class NodeTable:
    """The table of one node."""

    def __init__(self, node: NodeSpec, doors: Doors) -> None:
        self._node = node
        self._doors = doors
        self._namespace = 0
        self._nft: Nft | None = None
        self._loaded = ""
        self._listed = ""

    def sync(self, ports: Sequence[HostPort]) -> None:
        """Have the table serve these ports, or be gone where there are none. KernelError."""
        place = self._doors.place(self._node.name)
        if place is None or not (namespace := netns.number(place)):
            return
        self._enter(namespace)
        if not ports and self._loaded == REMOVE:
            return
        self._nft = nft = self._nft or self._doors.nft(place)
        script = render(ports) if ports else REMOVE
        listed = nft.list(f"table ip {TABLE}")
        if script != self._loaded or listed != self._listed:
            if ports or listed:
                nft.load(script)
            self._loaded, self._listed = script, nft.list(f"table ip {TABLE}")
            self._forget_stale(place, ports)
        if not ports:
            self.close()

    def close(self) -> None:
        """Release what is open."""
        if self._nft:
            self._nft.close()
            self._nft = None

    def _enter(self, namespace: int) -> None:
        """Whatever was done in a namespace that is gone has not been done in this one."""
        if namespace != self._namespace:
            self.close()
            self._namespace, self._loaded, self._listed = namespace, "", ""

    def _forget_stale(self, place: Path, ports: Sequence[HostPort]) -> None:
        if not any(port.protocol == "udp" for port in ports) or self._node.pod_cidr is None:
            return
        local = {self._node.address.ip, self._node.pod_cidr.network_address, gateway(self._node.pod_cidr)}
        flows = self._doors.flows(place)
        try:
            flows.delete(stale_flows(flows.udp_flows(), ports, local))
        finally:
            flows.close()


def ports_by_node(pods: Iterable[Object]) -> dict[str, list[HostPort]]:
    """The host ports of each node. Where two pods claim the same one, that which stays has it, or else the older."""
    found: dict[str, dict[tuple[IPv4Address | None, str, int], HostPort]] = {}
    for pod in sorted(pods, key=_precedence):
        if _matters(pod):
            taken = found.setdefault(spec(pod)["nodeName"], {})
            for port in host_ports(pod):
                taken.setdefault((port.host_ip, port.protocol, port.number), port)
    return {node: list(ports.values()) for node, ports in found.items()}


def host_ports(pod: Object) -> list[HostPort]:
    """Those of a pod with an address of its own; a pod on its node's network needs no rule."""
    target = IPv4Address(status(pod)["podIP"])
    containers = [*(spec(pod).get("containers") or []), *(spec(pod).get("initContainers") or [])]
    return [
        HostPort(
            protocol=port.get("protocol", "TCP").lower(),
            number=port["hostPort"],
            target=target,
            target_port=port["containerPort"],
            host_ip=None if port.get("hostIP", "") in ANY_ADDRESS else IPv4Address(port["hostIP"]),
        )
        for container in containers
        for port in container.get("ports") or []
        if port.get("hostPort")
    ]


def _matters(pod: Object | None) -> tuple[object, ...]:
    """What of a pod decides its host ports; empty for one that has none."""
    if pod is None or spec(pod).get("hostNetwork") or not spec(pod).get("nodeName") or not status(pod).get("podIP"):
        return ()
    if status(pod).get("phase") in ("Succeeded", "Failed"):
        return ()
    ports = tuple(host_ports(pod))
    return (spec(pod)["nodeName"], is_deleting(pod), ports) if ports else ()


def _precedence(pod: Object) -> tuple[bool, str, Key]:
    return is_deleting(pod), metadata(pod).get("creationTimestamp", ""), key(pod)
