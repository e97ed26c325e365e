"""Nodes: the ones that fall silent are no longer Ready, and the pods of those that have gone are deleted.

An agent renews the Lease kube-node-lease/NODE. The time counted is this process's own, from the renewal seen last, so
that clocks of machines need not agree.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from testbed.api.kinds import NODE, POD
from testbed.api.objects import Key, Object, condition, metadata, name, namespace, now, spec, status, uid
from testbed.api.wellknown import LEASE_NAMESPACE
from testbed.controllers.cluster import Cluster, node_of
from testbed.controllers.events import Recorder
from testbed.controllers.loop import Loop, together
from testbed.errors import Conflict, NotFound

GRACE_S = 40.0
"""node-monitor-grace-period."""
SILENT = "NodeStatusUnknown"
NODE_NOT_READY = "NodeNotReady"


class Nodes:
    """The controller."""

    def __init__(self, cluster: Cluster, grace_s: float = GRACE_S) -> None:
        self._cluster, self._client, self._grace_s = cluster, cluster.client, grace_s
        self._events = Recorder(cluster.client, "node-controller")
        self._heard: dict[str, float] = {}
        self._stranded: dict[str, dict[str, Object]] = {}
        self.loop = Loop("node", self.reconcile)
        cluster.nodes.observe(self._node_changed)
        cluster.leases.observe(self._lease_changed)
        cluster.pods.observe(self._pod_changed)

    async def reconcile(self, which: Key) -> None:
        """Judge the node by its last renewal, and its pods by the node."""
        await together(*(self._delete(pod) for pod in self._stranded.get(which.name, {}).values()))
        node = self._cluster.nodes.items.get(which)
        if node is None:
            await self._sweep(which)
            return
        left_s = self._left_s(which.name)
        reason = condition(node, "Ready").get("reason")
        if left_s > 0:
            self.loop.enqueue_after(which, left_s)
            if reason == SILENT:
                await self._set_ready(node, "True", "AgentReady", "The agent renews its lease again.")
                await self._events.normal(node, "NodeReady", f"Node {which.name} status is now: NodeReady")
        elif reason != SILENT:
            await self._set_ready(node, "Unknown", SILENT, "The agent has stopped renewing its lease.")
            await self._events.warning(node, NODE_NOT_READY, f"Node {which.name} status is now: {NODE_NOT_READY}")
        await self._set_pods(which.name, is_silent=left_s <= 0)

    async def _sweep(self, which: Key) -> None:
        """Delete pods of a node that is not there, after the grace: they may be bound by hand before it is."""
        pods = self._cluster.pods_by_node[which.name]
        if pods and (left_s := self._left_s(which.name)) > 0:
            self.loop.enqueue_after(which, left_s)
            return
        await together(*(self._delete(pod) for pod in pods))
        self._heard.pop(which.name, None)

    async def _delete(self, pod: Object) -> None:
        with suppress(NotFound, Conflict):  # gone already, or another pod of that name
            await self._client.delete(POD, name(pod), namespace(pod), grace_period_s=0, uid=uid(pod))
        self._stranded.get(node_of(pod), {}).pop(uid(pod), None)

    def _left_s(self, node: str) -> float:
        clock = asyncio.get_running_loop().time()
        return self._heard.setdefault(node, clock) + self._grace_s - clock

    async def _set_ready(self, node: Object, value: str, reason: str, message: str) -> None:
        verdict = {"type": "Ready", "status": value, "reason": reason, "message": message}
        written = await self._client.patch(NODE, name(node), _with_condition(node, verdict), subresource="status")
        self._cluster.nodes.learn(written)

    async def _set_pods(self, node: str, *, is_silent: bool) -> None:
        """The pods of a silent node are not ready. When it is heard again, they are as ready as their containers are by
        the agent's last word, which the agent corrects where it has changed."""
        if is_silent:
            changed = [pod for pod in self._cluster.pods_by_node[node] if _value(pod, "Ready") == "True"]
            verdict = {"type": "Ready", "status": "False", "reason": NODE_NOT_READY}
        else:
            changed = [pod for pod in self._cluster.pods_by_node[node] if _was_ready(pod)]
            verdict = {"type": "Ready", "status": "True"}
        await together(*(self._set_pod(pod, verdict) for pod in changed))

    async def _set_pod(self, pod: Object, verdict: dict[str, str]) -> None:
        patch = _with_condition(pod, verdict)
        self._cluster.pods.learn(await self._client.patch(POD, name(pod), patch, namespace(pod), subresource="status"))

    def _node_changed(self, which: Key, old: Object | None, new: Object | None) -> None:
        if new is None:  # whoever comes by that name is another machine: these pods are nowhere
            pods = self._cluster.pods_by_node[which.name]
            self._stranded.setdefault(which.name, {}).update({uid(pod): pod for pod in pods})
        elif old is None:
            self._heard[which.name] = asyncio.get_running_loop().time()
        if old is None or new is None or condition(old, "Ready") != condition(new, "Ready"):
            self.loop.enqueue(which)

    def _lease_changed(self, which: Key, old: Object | None, new: Object | None) -> None:
        if which.namespace != LEASE_NAMESPACE or new is None:
            return
        if spec(old or {}).get("renewTime") != spec(new).get("renewTime"):
            self._heard[which.name] = asyncio.get_running_loop().time()
            node = Key("", which.name)
            if condition(self._cluster.nodes.items.get(node, {}), "Ready").get("reason") == SILENT:
                self.loop.enqueue(node)

    def _pod_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        node = node_of(new or {})
        if node and node != node_of(old or {}) and Key("", node) not in self._cluster.nodes.items:
            self.loop.enqueue(Key("", node))


def _value(obj: Object, kind: str) -> str:
    return str(condition(obj, kind).get("status", ""))


def _was_ready(pod: Object) -> bool:
    by_us = condition(pod, "Ready").get("reason") == NODE_NOT_READY
    return by_us and _value(pod, "Ready") == "False" and _value(pod, "ContainersReady") == "True"


def _with_condition(obj: Object, verdict: dict[str, str]) -> dict[str, Any]:
    """A patch of the status that replaces one condition, and is refused where somebody has written in between."""
    others = [held for held in status(obj).get("conditions") or [] if held.get("type") != verdict["type"]]
    return {
        "metadata": {"resourceVersion": metadata(obj)["resourceVersion"]},
        "status": {"conditions": [*others, {**verdict, "lastTransitionTime": now()}]},
    }
