"""What every node carries: the pods on it and those just sent there, sorted by what the next decision asks."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from testbed.api.objects import Key, Object, controller_of, key, spec
from testbed.controllers.cluster import has_ended, node_of

Port = tuple[str, str, int]
"""Host address, protocol, number."""


@dataclass
class Occupants:
    """The pods of one node."""

    pods: dict[Key, Object] = field(default_factory=dict)
    repelling: dict[Key, Object] = field(default_factory=dict)
    """Those that tolerate not every neighbour."""
    ports: dict[Key, set[Port]] = field(default_factory=dict)
    """The ports of the node that are taken."""
    owners: Counter[str] = field(default_factory=Counter)
    """How many pods of each controller, by its uid."""

    def add(self, which: Key, pod: Object) -> None:
        """Count a pod in; it is not there yet."""
        self.pods[which] = pod
        self.owners[owner_of(pod)] += 1
        if repulsion(pod):
            self.repelling[which] = pod
        if ports := host_ports(pod):
            self.ports[which] = ports

    def remove(self, which: Key) -> None:
        """Count a pod out."""
        owner = owner_of(self.pods.pop(which))
        self.owners[owner] -= 1
        if not self.owners[owner]:
            del self.owners[owner]
        self.repelling.pop(which, None)
        self.ports.pop(which, None)


class Occupancy:
    """Which pod is on which node, a decision counting from the moment it is made."""

    def __init__(self) -> None:
        self._nodes: defaultdict[str, Occupants] = defaultdict(Occupants)
        self._where: dict[Key, str] = {}

    def __getitem__(self, node: str) -> Occupants:
        """The pods of a node."""
        return self._nodes[node]

    def place(self, pod: Object, node: str) -> None:
        """The pod is on that node, or on its way there, and nowhere else."""
        which = key(pod)
        if self._where.get(which) != node:
            self.remove(which)
            self._where[which] = node
            self._nodes[node].add(which, pod)

    def remove(self, which: Key) -> None:
        """The pod is on no node."""
        node = self._where.pop(which, None)
        if node is not None:
            self._nodes[node].remove(which)

    def follow(self, which: Key, _: Object | None, new: Object | None) -> None:
        """Take in what the watch tells: it may be behind a decision, never ahead of one."""
        if new is None or has_ended(new):
            self.remove(which)
        elif node_of(new):
            self.place(new, node_of(new))


def owner_of(pod: Object) -> str:
    """The uid of the pod's controller, empty for a pod on its own."""
    return str(controller_of(pod).get("uid") or "")


def host_ports(pod: Object) -> set[Port]:
    """The ports of its node that a pod takes: hostPort, and every port of a hostNetwork pod, its sidecars' too."""
    on_host = spec(pod).get("hostNetwork")
    sidecars = [one for one in spec(pod).get("initContainers") or [] if one.get("restartPolicy") == "Always"]
    return {
        (port.get("hostIP", ""), port.get("protocol", "TCP"), number)
        for container in [*(spec(pod).get("containers") or []), *sidecars]
        for port in container.get("ports") or []
        if (number := port.get("hostPort") or (port.get("containerPort") if on_host else 0))
    }


def repulsion(pod: Object) -> list[dict[str, Any]]:
    """The required terms of the pod's anti-affinity."""
    return required_affinity(pod, "podAntiAffinity") or []


def required_affinity(pod: Object, which: str) -> Any:
    """What must hold when the pod is scheduled, of its nodeAffinity or podAntiAffinity; None where nothing must."""
    affinity = (spec(pod).get("affinity") or {}).get(which) or {}
    return affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
