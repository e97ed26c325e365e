"""The scheduler: a node for every pod that has none, as evenly as what the pods ask for allows."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from testbed.api.kinds import POD
from testbed.api.objects import (
    Key,
    Object,
    condition,
    is_deleting,
    is_ready,
    labels,
    name,
    namespace,
    now,
    spec,
    status,
    uid,
)
from testbed.controllers.cluster import Cluster, has_ended, node_of
from testbed.controllers.events import Recorder
from testbed.controllers.fit import Candidate, explain, obstacle
from testbed.controllers.loop import Loop
from testbed.controllers.occupancy import Occupancy, owner_of
from testbed.errors import ApiError

SCHEDULER_NAME = "default-scheduler"
PATIENCE_S = 0.5
"""A pod is called unschedulable only when it has fitted nowhere for this long: at first nodes are still joining."""


class Scheduler:
    """The controller. Decisions are made one at a time and count at once; they are written side by side."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._client = cluster, cluster.client
        self._events = Recorder(cluster.client, SCHEDULER_NAME)
        self._occupancy = Occupancy()
        self._homeless: dict[Key, float] = {}
        self.loop = Loop("scheduler", self.reconcile, workers=64)
        cluster.pods.observe(self._occupancy.follow)
        cluster.pods.observe(self._pod_changed)
        cluster.nodes.observe(self._node_changed)

    async def reconcile(self, which: Key) -> None:
        """Choose a node and bind the pod to it, or say why there is none."""
        pod = self._cluster.pods.items.get(which)
        if pod is None or not _is_waiting(pod):
            self._homeless.pop(which, None)
            return
        candidates = [Candidate(node, self._occupancy[name(node)]) for node in self._cluster.nodes.items.values()]
        obstacles = [obstacle(pod, candidate) for candidate in candidates]
        fitting = [candidate for candidate, why in zip(candidates, obstacles, strict=True) if not why]
        if fitting:
            self._homeless.pop(which, None)
            await self._bind(which, pod, name(min(fitting, key=partial(_crowd, owner_of(pod))).node))
        else:
            await self._keep_waiting(which, pod, explain(obstacles))

    async def _bind(self, which: Key, pod: Object, node: str) -> None:
        self._occupancy.place(pod, node)
        try:
            binding = {"metadata": {"uid": uid(pod)}, "spec": {"nodeName": node}}
            bound = await self._client.patch(POD, name(pod), binding, namespace(pod))
        except ApiError:
            self._occupancy.remove(which)
            raise
        self._cluster.pods.learn(bound)
        await self._events.normal(pod, "Scheduled", f"Successfully assigned {which} to {node}")

    async def _keep_waiting(self, which: Key, pod: Object, why: str) -> None:
        clock = asyncio.get_running_loop().time()
        patience_s = self._homeless.setdefault(which, clock) + PATIENCE_S - clock
        if patience_s > 0:
            self.loop.enqueue_after(which, patience_s)
            return
        held = condition(pod, "PodScheduled")
        if held.get("status") == "False" and held.get("message") == why:
            return
        patch = {"status": {"conditions": _unschedulable(pod, why)}}
        written = await self._client.patch(POD, name(pod), patch, namespace(pod), subresource="status")
        self._cluster.pods.learn(written)
        await self._events.warning(pod, "FailedScheduling", why)

    def _pod_changed(self, which: Key, old: Object | None, new: Object | None) -> None:
        if new is not None and _is_waiting(new):
            if old is None or spec(old) != spec(new):
                self.loop.enqueue(which)
        elif new is None or has_ended(new):  # it may have made room
            self._homeless.pop(which, None)
            self._try_again()

    def _node_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        if old is None or new is None or _offers(old) != _offers(new):
            self._try_again()

    def _try_again(self) -> None:
        for which in self._homeless:
            self.loop.enqueue(which)


def _is_waiting(pod: Object) -> bool:
    is_ours = spec(pod).get("schedulerName", SCHEDULER_NAME) == SCHEDULER_NAME
    return is_ours and not node_of(pod) and not is_deleting(pod) and not has_ended(pod)


def _crowd(owner: str, candidate: Candidate) -> tuple[int, int, str]:
    """Fewest pods of the same controller first, then fewest pods, then by name."""
    occupants = candidate.occupants
    return occupants.owners[owner] if owner else 0, len(occupants.pods), name(candidate.node)


def _offers(node: Object) -> tuple[Any, ...]:
    """What of a node decides who may go there."""
    allocatable = status(node).get("allocatable")
    return labels(node), spec(node).get("taints"), spec(node).get("unschedulable"), is_ready(node), allocatable


def _unschedulable(pod: Object, why: str) -> list[dict[str, Any]]:
    held = condition(pod, "PodScheduled")
    since = held.get("lastTransitionTime", now()) if held.get("status") == "False" else now()
    others = [c for c in status(pod).get("conditions") or [] if c.get("type") != "PodScheduled"]
    verdict = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    return [*others, {**verdict, "lastTransitionTime": since}]
