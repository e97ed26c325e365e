"""The cluster as all controllers see it: one informer per kind, and the indexes that spare every reconcile a scan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from testbed.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    LEASE,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    SERVICE,
    Kind,
)
from testbed.api.objects import Object, labels, metadata, namespace, spec, status
from testbed.client.informer import Index, Informer
from testbed.client.protocol import Client

Label = tuple[str, str, str]
"""Namespace, label name and value; with name and value empty: everything in the namespace."""

FOLLOWED: tuple[Kind, ...] = (
    NAMESPACE, NODE, LEASE, POD, REPLICA_SET, DEPLOYMENT, SERVICE, ENDPOINT_SLICE, ENDPOINTS, CONFIG_MAP,
)  # fmt: skip
"""Every kind that owns, or is owned. Events are neither, and are many."""


class Cluster:
    """Informers and indexes. What they hold is shared: copy an object before changing it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.informers = {kind: Informer(client, kind) for kind in FOLLOWED}
        self.dependents: Mapping[Kind, Index[str]] = {
            kind: informer.index(owner_uids) for kind, informer in self.informers.items()
        }
        """Of each kind, the objects with an ownerReference to a uid."""
        self.namespaces, self.nodes, self.leases = self._of(NAMESPACE), self._of(NODE), self._of(LEASE)
        self.pods, self.replica_sets, self.deployments = self._of(POD), self._of(REPLICA_SET), self._of(DEPLOYMENT)
        self.services, self.slices, self.endpoints = self._of(SERVICE), self._of(ENDPOINT_SLICE), self._of(ENDPOINTS)
        self.config_maps = self._of(CONFIG_MAP)
        self.pods_by_label = self.pods.index(own_labels)
        self.pods_by_node = self.pods.index(lambda pod: [node_of(pod)])
        self.replica_sets_by_label = self.replica_sets.index(own_labels)
        self.services_by_selector = self.services.index(service_anchors)
        self.replica_sets_by_selector = self.replica_sets.index(workload_anchors)
        self.deployments_by_selector = self.deployments.index(workload_anchors)

    async def synced(self) -> None:
        """Return when every informer has its first list."""
        for informer in self.informers.values():
            await informer.synced.wait()

    def _of(self, kind: Kind) -> Informer:
        return self.informers[kind]


def owner_uids(obj: Object) -> list[str]:
    """The uids that the object's ownerReferences name."""
    return [reference["uid"] for reference in metadata(obj).get("ownerReferences") or []]


def node_of(pod: Object) -> str:
    """spec.nodeName, empty while the pod is not scheduled."""
    return spec(pod).get("nodeName") or ""


def has_ended(pod: Object) -> bool:
    """Whether the pod's containers have ended for good (phase Succeeded or Failed)."""
    return status(pod).get("phase") in {"Succeeded", "Failed"}


def own_labels(obj: Object) -> list[Label]:
    """The places under which an object is found by a selector."""
    space = namespace(obj)
    return [(space, name, value) for name, value in labels(obj).items()] + [(space, "", "")]


def anchor(space: str, wanted: Mapping[str, str]) -> Label:
    """One label that everything selected must have, so that one lookup replaces a scan."""
    return (space, *min(wanted.items())) if wanted else (space, "", "")


def service_anchors(service: Object) -> list[Label]:
    """Where a Service with a selector is found by the labels of a pod."""
    selector = service_selector(service)
    return [anchor(namespace(service), selector)] if selector else []


def workload_anchors(workload: Object) -> list[Label]:
    """Where a ReplicaSet or Deployment is found by the labels of what it selects."""
    return [anchor(namespace(workload), match_labels(workload))]


def service_selector(service: Object) -> Mapping[str, str]:
    """spec.selector, empty for a Service whose endpoints are somebody else's matter (ExternalName among them)."""
    return {} if spec(service).get("type") == "ExternalName" else spec(service).get("selector") or {}


def match_labels(workload: Object) -> Mapping[str, str]:
    """spec.selector.matchLabels"""
    selector: Mapping[str, Any] = spec(workload).get("selector") or {}
    return selector.get("matchLabels") or {}


def selecting(index: Index[Label], *candidates: Object | None) -> Iterable[Object]:
    """The Services or workloads that may select any of the objects: all that do, and some that do not."""
    places = {place for obj in candidates if obj is not None for place in own_labels(obj)}
    return (found for place in places for found in index[place])


def selectable(index: Index[Label], space: str, wanted: Mapping[str, str]) -> Sequence[Object]:
    """The objects that may be selected by labels: all that are, and some that are not."""
    return index[anchor(space, wanted)]
