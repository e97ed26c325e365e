"""The pods of a comparison, as ordinary manifests: load generators, web servers, Services, probes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from testbed.api.kinds import kind_of
from testbed.api.objects import Object
from testbed.compare.load import ClusterPlan, Comparison
from testbed.compare.placement import Placement
from testbed.compare.schema import Client, Target
from testbed.topology.manifests import Manifest
from testbed.topology.source import Source

NAMESPACE = "compare"
PORT = 9080
"""Of the web servers: unlikely to be taken on a node, where a hostNetwork target listens too."""
APP_LABEL = "app.kubernetes.io/name"
CONTAINER = "main"
READINESS = {
    "httpGet": {"path": "/healthz", "port": PORT},
    "periodSeconds": 1,
    "timeoutSeconds": 10,
    "failureThreshold": 10,
}
"""Quick to see a server start, and slow to give it up: under load the one who asks may have to wait for a CPU."""


def client_name(client: Client) -> str:
    """The pod that makes the requests of that client; variants with the same client share it."""
    return _name("load", client)


def target_name(target: Target) -> str:
    """The pod that answers, and the Service in front of it."""
    return _name("web", target)


def probe_name(node: str) -> str:
    """The pod that looks at a node."""
    return f"probe-{node}"


def workloads(comparison: Comparison, cluster: ClusterPlan, placement: Placement) -> list[Manifest]:
    """Everything that the variants of one cluster need, beside the manifests of its topology."""
    variants = [comparison.variants[name] for name in cluster.variants]
    source = Source(str(comparison.file))
    documents = {doc["kind"] + doc["metadata"]["name"]: doc for doc in _documents(variants, placement)}
    return [Manifest(doc, kind_of(doc), source) for doc in documents.values()]


def _documents(variants: Iterable[Any], placement: Placement) -> Iterator[Object]:
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    for variant in variants:
        yield load_pod(variant.client)
        yield web_pod(variant.target, placement)
        if variant.target.via == "service":
            yield service(variant.target)
        for node in (variant.client.node, variant.target.node):
            yield probe_pod(node)


def load_pod(client: Client) -> Object:
    """A pod that waits; generators are started in it by exec, and pin themselves."""
    container = {
        "name": CONTAINER,
        "image": "testbed/load",
        "args": ["sleep"],
        "securityContext": {"capabilities": {"add": ["SYS_NICE"]}},
    }
    return _pod(client_name(client), client.node, container, host_network=client.host_network)


def web_pod(target: Target, placement: Placement) -> Object:
    """nginx on the server's CPU, on the pod network or the node's."""
    container = {
        "name": CONTAINER,
        "image": "testbed/web",
        "env": [{"name": "PORT", "value": str(PORT)}, {"name": "CPUS", "value": str(placement.server)}],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": READINESS,
    }
    return _pod(target_name(target), target.node, container, host_network=target.host_network)


def probe_pod(node: str) -> Object:
    """A pod on the node's own network that may see its packets, its connections and the server's processes."""
    container = {
        "name": CONTAINER,
        "image": "testbed/probe",
        "args": ["sleep"],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN", "NET_RAW", "SYS_NICE", "SYS_PTRACE"]}},
    }
    pod = _pod(probe_name(node), node, container, host_network=True)
    pod["spec"]["hostPID"] = True
    return pod


def service(target: Target) -> Object:
    """A ClusterIP in front of the target's pod."""
    name = target_name(target)
    ports = [{"name": "http", "port": PORT, "targetPort": PORT}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {APP_LABEL: name}, "ports": ports},
    }


def _pod(name: str, node: str, container: Object, *, host_network: bool) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {APP_LABEL: name}},
        "spec": {
            "nodeName": node,
            "hostNetwork": host_network,
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
        },
    }


def _name(role: str, end: Client | Target) -> str:
    return f"{role}-{end.node}-host" if end.host_network else f"{role}-{end.node}"
