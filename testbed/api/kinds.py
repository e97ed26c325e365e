"""The kinds that are served. One table feeds routing, discovery, storage and the clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbed.errors import BadRequest


@dataclass(frozen=True)
class Kind:
    """One kind: where it lives in the API and what it can do."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """`pods` or `deployments.apps`, as messages of Kubernetes say it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def root(self) -> str:
        """`/api/v1` or `/apis/apps/v1`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of the collection, an object, or one of its subresources."""
        parts = [self.root]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


NAMESPACE = Kind("", "v1", "Namespace", "namespaces", namespaced=False, short_names=("ns",), subresources=("status",))
NODE = Kind("", "v1", "Node", "nodes", namespaced=False, short_names=("no",), subresources=("status", "proxy"))
POD = Kind(
    "", "v1", "Pod", "pods", short_names=("po",), categories=("all",),
    subresources=("status", "log", "exec", "binding", "proxy"),
)  # fmt: skip
SERVICE = Kind(
    "", "v1", "Service", "services", short_names=("svc",), categories=("all",), subresources=("status", "proxy")
)
ENDPOINTS = Kind("", "v1", "Endpoints", "endpoints", short_names=("ep",))
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps", short_names=("cm",))
EVENT = Kind("", "v1", "Event", "events", short_names=("ev",))
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
DEPLOYMENT = Kind(
    "apps", "v1", "Deployment", "deployments", short_names=("deploy",), categories=("all",),
    subresources=("status", "scale"),
)  # fmt: skip
REPLICA_SET = Kind(
    "apps", "v1", "ReplicaSet", "replicasets", short_names=("rs",), categories=("all",),
    subresources=("status", "scale"),
)  # fmt: skip

KINDS: tuple[Kind, ...] = (
    NAMESPACE, NODE, POD, SERVICE, ENDPOINTS, CONFIG_MAP, EVENT, LEASE, ENDPOINT_SLICE, DEPLOYMENT, REPLICA_SET,
)  # fmt: skip

_BY_NAME = {(kind.api_version, kind.kind): kind for kind in KINDS}


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """The kind of an object by its apiVersion and kind; BadRequest names both where nothing serves them."""
    wanted = (obj.get("apiVersion"), obj.get("kind"))
    if kind := _BY_NAME.get(wanted):  # type: ignore[arg-type]
        return kind
    raise BadRequest(f"no kind {wanted[1]!r} is served in apiVersion {wanted[0]!r}")
