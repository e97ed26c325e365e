"""The Node objects and Leases of one host: what the agent says about its nodes, and goes on saying."""

import asyncio
import logging
import os
import platform
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from testbed.api.kinds import LEASE, NODE
from testbed.api.objects import (
    Key,
    Object,
    annotations,
    condition,
    labels,
    metadata,
    name,
    now,
    now_micro,
    spec,
    status,
    uid,
)  # fmt: skip
from testbed.api.wellknown import (
    AGENT_PORT,
    BACKEND_ANNOTATION,
    HOST_LABEL,
    HOSTNAME_LABEL,
    LEASE_NAMESPACE,
    ROLE_LABEL,
    UNDERLAY_ANNOTATION,
    VTEP_MAC_ANNOTATION,
)  # fmt: skip
from testbed.client.informer import Informer
from testbed.client.protocol import Client
from testbed.errors import AlreadyExists, ApiError, Conflict, NotFound
from testbed.topology.spec import ClusterSpec, NodeSpec

log = logging.getLogger(__name__)

LEASE_PERIOD_S = 10.0
LEASE_DURATION_S = 40
EXTERNAL_TAINT = "testbed/external"
TOPOLOGY_LABELS = "testbed/labels"
"""Annotation: the names of the labels that the topology gave, so that one it no longer gives can be taken away."""
RESERVED_ADDRESSES = 3
"""Of a pod CIDR: the network's, the bridge's and the broadcast address."""
PODS_OF_EXTERNAL = 110
KUBELET_VERSION = "v1.33.0-testbed"
"""The version of the kubelet's interface that the agent keeps to."""


def node_object(cluster: ClusterSpec, node: NodeSpec) -> Object:
    """The Node as the agent registers it, Ready."""
    addresses = {"InternalIP": str(node.address.ip), "Hostname": node.name}
    return {
        "apiVersion": NODE.api_version,
        "kind": NODE.kind,
        "metadata": {"name": node.name, "labels": _labels(node), "annotations": _annotations(cluster, node)},
        "spec": _spec(node),
        "status": {
            "addresses": [{"type": kind, "address": address} for kind, address in addresses.items()],
            "daemonEndpoints": {
                "kubeletEndpoint": {"Port": AGENT_PORT, "Address": str(cluster.host(node.host).switch)}
            },
            "capacity": _capacity(node),
            "allocatable": _capacity(node),
            "nodeInfo": _node_info(cluster.runtime),
            "conditions": [ready_condition()],
        },
    }


def lease_object(node: Object) -> Object:
    """The Lease by whose renewal the node is known to be alive; it goes with its Node."""
    owner = {"apiVersion": NODE.api_version, "kind": NODE.kind, "name": name(node), "uid": uid(node)}
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {"name": name(node), "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
        "spec": {
            "holderIdentity": name(node),
            "leaseDurationSeconds": LEASE_DURATION_S,
            "acquireTime": now_micro(),
            "renewTime": now_micro(),
        },
    }


def ready_condition() -> dict[str, str]:
    """What an agent that is alive says of a node that is wired."""
    moment = now()
    return {
        "type": "Ready",
        "status": "True",
        "reason": "AgentReady",
        "message": "the node is wired and its agent runs its pods",
        "lastHeartbeatTime": moment,
        "lastTransitionTime": moment,
    }


def corrections(held: Object, wanted: Object) -> tuple[dict[str, Any], dict[str, Any]]:
    """What must be patched in a Node, and in its status, so that it says what is wanted; conditions are left alone.

    Labels and annotations of others stay; labels that the topology gave earlier and no longer gives go.
    """
    given = set(filter(None, annotations(held).get(TOPOLOGY_LABELS, "").split(",")))
    removed = dict.fromkeys(given & labels(held).keys() - labels(wanted).keys())
    meta = {
        "labels": {**_differing(labels(held), labels(wanted)), **removed},
        "annotations": _differing(annotations(held), annotations(wanted)),
    }
    patch: dict[str, Any] = {"metadata": {field: value for field, value in meta.items() if value}}
    if (spec(held).get("taints") or []) != (spec(wanted).get("taints") or []):
        patch["spec"] = {"taints": spec(wanted).get("taints")}
    state = {field: value for field, value in status(wanted).items() if field != "conditions"}
    return {field: value for field, value in patch.items() if value}, _differing(status(held), state)


class Nodes:
    """Keeps the Nodes of one host true. `held` is an informer of all Nodes, which somebody else runs."""

    def __init__(self, client: Client, host: str, held: Informer) -> None:
        self._client = client
        self._host = host
        self._held = held
        self._registered: set[str] = set()

    async def sync(self, cluster: ClusterSpec, wired: Collection[str]) -> None:
        """Register the wired nodes, and delete the Nodes of this host that the spec no longer has. ApiError."""
        nodes = [node for node in cluster.nodes_of(self._host) if node.name in wired]
        await asyncio.gather(*(self._register(cluster, node) for node in nodes))
        names = {node.name for node in cluster.nodes_of(self._host)}
        for key, held in list(self._held.items.items()):
            if labels(held).get(HOST_LABEL) == self._host and key.name not in names:
                await self._delete(key.name)
        self._registered = {node.name for node in nodes}

    async def renew_leases(self) -> None:
        """Every 10 s, until cancelled. An API server that cannot be reached is asked again the next time."""
        while True:
            for result in await asyncio.gather(*map(self._renew, self._registered), return_exceptions=True):
                if isinstance(result, ApiError):
                    log.warning("a lease was not renewed: %s", result)
                elif isinstance(result, BaseException):
                    raise result
            await asyncio.sleep(LEASE_PERIOD_S)

    async def _register(self, cluster: ClusterSpec, node: NodeSpec) -> None:
        wanted = node_object(cluster, node)
        held = self._held.items.get(Key("", node.name))
        if held and spec(held).get("podCIDR") != spec(wanted).get("podCIDR"):  # it may not change in a Node
            await self._delete(node.name)
            held = None
        if held is None:
            try:
                held = await self._client.create(wanted)
                log.info("registered node %s", node.name)
                self._held.learn(held)
                await self._claim(held)
            except AlreadyExists:
                held = await self._client.get(NODE, node.name)
        elif node.name not in self._registered:  # an agent before this one has, some time ago
            await self._renew(node.name)
        await self._correct(held, wanted)

    async def _correct(self, held: Object, wanted: Object) -> None:
        patch, state = corrections(held, wanted)
        if patch:
            held = await self._client.patch(NODE, name(held), patch)
        if state:
            held = await self._client.patch(NODE, name(held), {"status": state}, subresource="status")
        while condition(held, "Ready").get("status") != "True":
            others = [other for other in status(held).get("conditions") or [] if other.get("type") != "Ready"]
            guarded = {
                "metadata": {"resourceVersion": metadata(held)["resourceVersion"]},
                "status": {"conditions": [*others, ready_condition()]},
            }
            try:
                held = await self._client.patch(NODE, name(held), guarded, subresource="status")
            except Conflict:
                held = await self._client.get(NODE, name(held))

    async def _claim(self, node: Object) -> None:
        try:
            await self._client.create(lease_object(node))
        except AlreadyExists:
            await self._renew(name(node))

    async def _renew(self, node: str) -> None:
        try:
            renewal = {"spec": {"renewTime": now_micro()}}
            await self._client.patch(LEASE, node, renewal, LEASE_NAMESPACE)
        except NotFound:
            await self._claim(await self._client.get(NODE, node))

    async def _delete(self, node: str) -> None:
        with suppress(NotFound):
            await self._client.delete(NODE, node)


def _labels(node: NodeSpec) -> dict[str, str]:
    own = {HOSTNAME_LABEL: node.name, HOST_LABEL: node.host, ROLE_LABEL: node.role, "kubernetes.io/os": "linux"}
    return {**node.labels, **own}


def _annotations(cluster: ClusterSpec, node: NodeSpec) -> dict[str, str]:
    return {
        UNDERLAY_ANNOTATION: str(node.address.ip),
        VTEP_MAC_ANNOTATION: node.vtep_mac,
        BACKEND_ANNOTATION: cluster.network.backend,
        TOPOLOGY_LABELS: ",".join(sorted(node.labels)),
    }


def _spec(node: NodeSpec) -> dict[str, Any]:
    if node.pod_cidr is None:
        return {"taints": [{"key": EXTERNAL_TAINT, "effect": "NoSchedule"}]}
    return {"podCIDR": str(node.pod_cidr), "podCIDRs": [str(node.pod_cidr)]}


def _capacity(node: NodeSpec) -> dict[str, str]:
    pods = node.pod_cidr.num_addresses - RESERVED_ADDRESSES if node.pod_cidr else PODS_OF_EXTERNAL
    return {"cpu": str(os.cpu_count() or 1), "pods": str(pods)}


def _node_info(runtime: str) -> dict[str, str]:
    return {
        "operatingSystem": "linux",
        "architecture": platform.machine(),
        "kernelVersion": platform.release(),
        "osImage": "testbed",
        "containerRuntimeVersion": f"{runtime}://testbed",
        "kubeletVersion": KUBELET_VERSION,
    }


def _differing(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in wanted.items() if held.get(field) != value}
