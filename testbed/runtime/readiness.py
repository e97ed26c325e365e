"""What a cluster still lacks until it is up, in words. Pure: objects in, sentences out.

A cluster is up when every node is Ready and has sent full-size packets to every other, every pod of the manifests is
Ready and behind its Services, and every node's kernel holds the rules for all of that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.api import objects
from testbed.api.kinds import DEPLOYMENT, ENDPOINT_SLICE, LEASE, NODE, POD, REPLICA_SET, SERVICE, Kind
from testbed.api.objects import (
    Key,
    Object,
    condition,
    is_deleting,
    is_ready,
    labels,
    metadata,
    name,
    namespace,
    resource_version,
    spec,
    status,
)
from testbed.api.selectors import match_labels, structured_selector
from testbed.api.wellknown import DAEMON_LEASE_PREFIX, SERVICE_NAME_LABEL, SYNCED_ANNOTATION, SYSTEM_NAMESPACE
from testbed.topology.spec import ClusterSpec

WATCHED: Mapping[Kind, str] = {
    NODE: "", POD: "", LEASE: SYSTEM_NAMESPACE, DEPLOYMENT: "", REPLICA_SET: "", SERVICE: "", ENDPOINT_SLICE: "",
}  # fmt: skip
"""The kinds to look at, each in one namespace or (empty) in all."""

Seen = Mapping[Kind, Mapping[Key, Object]]


@dataclass(frozen=True)
class Lack:
    """One thing that is not there yet. `pod` is set where it is a pod, whose events may tell more."""

    what: str
    pod: Key | None = None
    is_hopeless: bool = False
    """Waiting longer will hardly help: an image that cannot be had."""

    def __str__(self) -> str:
        return self.what


def lacks(cluster: ClusterSpec, applied: Collection[tuple[Kind, Key]], seen: Seen) -> list[Lack]:
    """Everything that is still missing, in the order in which things come about; empty when the cluster is up.

    `applied` says which objects of `seen` the manifests asked for.
    """
    nodes = [Lack(text) for text in _nodes(cluster, seen[NODE])]
    pods = [*_strays(cluster, seen[POD]), *_workloads(applied, seen)]
    if nodes or pods:
        return nodes + pods
    return [
        Lack(text) for text in (*_endpoints(applied, seen), *_balancers(cluster, applied, seen), *_rules(cluster, seen))
    ]


def unregistered(cluster: ClusterSpec, seen: Seen) -> list[Lack]:
    """The nodes that the cluster does not know of yet."""
    names = (node.name for node in cluster.nodes if Key("", node.name) not in seen[NODE])
    return [Lack(f"node {name}: has not registered") for name in names]


def _nodes(cluster: ClusterSpec, nodes: Mapping[Key, Object]) -> Iterator[str]:
    workers = {node.name for node in cluster.nodes if not node.is_external}
    for node in cluster.nodes:
        obj = nodes.get(Key("", node.name))
        if obj is None:
            yield f"node {node.name}: has not registered"
        elif not is_ready(obj):
            yield f"node {node.name}: is not Ready{_because(condition(obj, 'Ready'))}"
        elif not node.is_external and (reason := _unproven(cluster, obj, workers - {node.name})):
            yield f"node {node.name}: {reason}"
    for key in nodes.keys() - {Key("", node.name) for node in cluster.nodes}:
        yield f"node {key.name}: is no longer in the topology, and not removed yet"


def _unproven(cluster: ClusterSpec, node: Object, others: Collection[str]) -> str:
    """Why it is not known that full-size packets reach every other worker; empty when it is.

    The condition's message names sizes, backend and peers: a proof of another network, or of fewer peers, is none.
    """
    proof = condition(node, "NetworkUnavailable")
    if proof.get("status") != "False":
        return f"its network is not proven{_because(proof)}"
    named = set(re.findall(r"[-a-z0-9]+", proof.get("message") or ""))
    network = cluster.network
    if not {network.backend, str(network.pod_mtu), str(cluster.underlay.mtu)} <= named:
        return f"has not yet sent packets of {network.pod_mtu} bytes over {network.backend}"
    if missing := sorted(set(others) - named):
        return f"has not yet sent full-size packets to {', '.join(missing)}"
    return ""


def _because(said: Mapping[str, Any]) -> str:
    words = ": ".join(word for word in (said.get("reason"), said.get("message")) if word)
    return f" ({words})" if words else ""


def _strays(cluster: ClusterSpec, pods: Mapping[Key, Object]) -> Iterator[Lack]:
    """Pods whose node has left: until they are gone, a Deployment still counts them."""
    names = {node.name for node in cluster.nodes}
    for key, pod in pods.items():
        if (node := spec(pod).get("nodeName")) and node not in names:
            yield Lack(f"pod {key}: is on node {node}, which is no longer in the topology", key)


def _workloads(applied: Collection[tuple[Kind, Key]], seen: Seen) -> Iterator[Lack]:
    for kind, key in applied:
        if kind == POD:
            obj = seen[POD].get(key)
            if obj is None:
                yield Lack(f"pod {key}: does not exist", key)
            elif lack := _pod(obj):
                yield lack
        elif kind in (DEPLOYMENT, REPLICA_SET):
            yield from _replicas(kind, key, seen)


def _replicas(kind: Kind, key: Key, seen: Seen) -> Iterator[Lack]:
    obj = seen[kind].get(key)
    if obj is None:
        yield Lack(f"{kind.kind} {key}: does not exist")
        return
    wanted, now = spec(obj).get("replicas", 1), status(obj)
    counts = [now.get(count) or 0 for count in _COUNTS[kind]]
    is_seen = (now.get("observedGeneration") or 0) >= (metadata(obj).get("generation") or 0)
    if is_seen and all(count == wanted for count in counts):
        return
    selects = structured_selector(spec(obj).get("selector") or {})
    pods = [pod for pod in seen[POD].values() if namespace(pod) == key.namespace and selects(pod)]
    unready = [lack for lack in map(_pod, pods) if lack]
    ready = now.get("readyReplicas") or 0
    yield from unready or [Lack(f"{kind.kind} {key}: {ready} of {wanted} pods are Ready")]


_HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName")
_COUNTS = {DEPLOYMENT: ("replicas", "readyReplicas", "updatedReplicas"), REPLICA_SET: ("replicas", "readyReplicas")}


def _pod(pod: Object) -> Lack | None:
    state = pod_state(pod)
    waiting = [(c.get("state") or {}).get("waiting") or {} for c in status(pod).get("containerStatuses") or []]
    is_hopeless = any(each.get("reason") in _HOPELESS for each in waiting)
    return Lack(f"pod {_key(pod)}: {state}", _key(pod), is_hopeless) if state else None


def pod_state(pod: Object) -> str:
    """Why a pod is not Ready, as far as it says; empty for one that is, or that has done its work."""
    if is_deleting(pod):
        return "is being deleted"
    phase = status(pod).get("phase") or "Pending"
    if is_ready(pod) or phase == "Succeeded":
        return ""
    node = spec(pod).get("nodeName")
    if not node:
        return f"is not scheduled{_because(condition(pod, 'PodScheduled'))}"
    told = [text for text in map(_container_state, status(pod).get("containerStatuses") or []) if text]
    return "; ".join([f"on {node}: {told[0]}" if told else f"on {node}: {phase}", *told[1:]])


def _container_state(container: Mapping[str, Any]) -> str:
    if container.get("ready"):
        return ""
    title = f"container {container.get('name')}"
    state = container.get("state") or {}
    if waiting := state.get("waiting"):
        return f"{title} waits{_because(waiting)}"
    if ended := state.get("terminated"):
        return f"{title} ended with {ended.get('exitCode')}{_because(ended)}"
    return f"{title} runs, and is not ready"


def _endpoints(applied: Collection[tuple[Kind, Key]], seen: Seen) -> Iterator[str]:
    """Services of the manifests whose EndpointSlices do not hold all of their Ready pods yet."""
    for key in (key for kind, key in applied if kind == SERVICE):
        service = seen[SERVICE].get(key)
        if service is None:
            yield f"Service {key}: does not exist"
        elif selector := spec(service).get("selector"):
            selects = match_labels(selector)
            mine = (pod for pod in seen[POD].values() if namespace(pod) == key.namespace and selects(pod))
            wanted = {status(pod).get("podIP") for pod in mine if is_ready(pod) and not is_deleting(pod)}
            if missing := wanted - set(_addresses(key, seen[ENDPOINT_SLICE].values())):
                yield f"Service {key}: {len(missing)} of {len(wanted)} Ready pods are not among its endpoints"


def _balancers(cluster: ClusterSpec, applied: Collection[tuple[Kind, Key]], seen: Seen) -> Iterator[str]:
    """Services of the manifests that wait for an address of loadBalancerCIDR; without one, they may wait for ever."""
    if (cidr := cluster.services.load_balancer_cidr) is None:
        return
    for service in (seen[SERVICE].get(key, {}) for kind, key in applied if kind == SERVICE):
        is_ours = spec(service).get("type") == "LoadBalancer" and not spec(service).get("loadBalancerClass")
        if is_ours and not (status(service).get("loadBalancer") or {}).get("ingress"):
            yield f"Service {_key(service)}: has no address of {cidr} yet; its events say why"


def _addresses(service: Key, slices: Iterable[Object]) -> Iterator[str]:
    for endpoint_slice in slices:
        if namespace(endpoint_slice) != service.namespace:
            continue
        if labels(endpoint_slice).get(SERVICE_NAME_LABEL) != service.name:
            continue
        for endpoint in endpoint_slice.get("endpoints") or []:
            yield from endpoint.get("addresses") or []


def _rules(cluster: ClusterSpec, seen: Seen) -> Iterator[str]:
    """Nodes whose kernel does not hold the newest Services and endpoints."""
    newest = max(map(resource_version, (*seen[SERVICE].values(), *seen[ENDPOINT_SLICE].values())), default=0)
    for node in cluster.nodes:
        if node.is_external:
            continue
        lease = seen[LEASE].get(Key(SYSTEM_NAMESPACE, f"{DAEMON_LEASE_PREFIX}{node.name}"))
        synced = int(objects.annotations(lease or {}).get(SYNCED_ANNOTATION) or 0)
        if synced < newest:
            yield f"node {node.name}: its service rules are of version {synced}, and the newest is {newest}"


def _key(obj: Object) -> Key:
    return Key(namespace(obj), name(obj))


def summary(missing: Sequence[Lack]) -> str:
    """A few words for a line of progress."""
    words = f"waiting: {missing[0]}"
    return words if len(missing) == 1 else f"{words} (and {len(missing) - 1} more)"


def is_current(config: Object, cluster: ClusterSpec) -> bool:
    """Whether the ConfigMap kube-system/testbed holds this very spec."""
    text = (config.get("data") or {}).get("spec.json")
    return bool(json.loads(text or "null") == cluster.to_json())
