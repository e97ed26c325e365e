"""Services, EndpointSlices and pods for tests of the cluster's DNS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testbed.api.objects import Object
from testbed.api.wellknown import SERVICE_NAME_LABEL

HTTP = {"name": "http", "port": 80, "protocol": "TCP"}


def service(name: str = "web", namespace: str = "default", *, ip: str = "10.96.4.5", **fields: Any) -> Object:
    """A Service with that ClusterIP (None: headless) and one port, named http, unless `fields` says otherwise."""
    spec = {"clusterIP": ip, "clusterIPs": [ip], "ports": [HTTP], **fields}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def external(target: str, name: str = "db") -> Object:
    """An ExternalName."""
    spec = {"type": "ExternalName", "externalName": target}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def slice_of(
    *endpoints: Object, of: str = "web", ports: Sequence[Object] = (HTTP,), number: int = 1, **fields: Any
) -> Object:
    """The n-th EndpointSlice of a Service."""
    meta = {"name": f"{of}-{number}", "namespace": "default", "labels": {SERVICE_NAME_LABEL: of}}
    made = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4"}
    return {**made, "ports": list(ports), "endpoints": list(endpoints), **fields}


def endpoint(address: str, hostname: str = "", *, ready: bool | None = True) -> Object:
    """An endpoint; `ready` None leaves the condition out."""
    made: Object = {"addresses": [address], "conditions": {} if ready is None else {"ready": ready}}
    return made | ({"hostname": hostname} if hostname else {})


def pod(ip: str, name: str = "one", phase: str = "Running") -> Object:
    """A pod with an address."""
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}, "status": {"podIP": ip, "phase": phase}}
