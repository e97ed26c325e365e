"""Services and EndpointSlices for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testbed.api.objects import Object
from testbed.api.wellknown import SERVICE_NAME_LABEL

READY = {"ready": True, "serving": True, "terminating": False}
UNREADY = {"ready": False, "serving": False, "terminating": False}
TERMINATING = {"ready": False, "serving": True, "terminating": True}


def service(
    name: str = "web",
    *,
    clusterIP: str = "10.96.0.10",  # noqa: N803 - the API's own word
    ports: Sequence[Mapping[str, Any]] = ({"port": 80, "protocol": "TCP"},),
    labels: Mapping[str, str] | None = None,
    **spec: Any,
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": dict(labels or {})},
        "spec": {"clusterIP": clusterIP, "ports": [dict(port) for port in ports], **spec},
    }


def slice_of(
    endpoints: Sequence[Object],
    *,
    service: str = "web",
    namespace: str = "default",
    name: str = "",
    ports: Sequence[Mapping[str, Any]] = ({"port": 8080, "protocol": "TCP"},),
    **fields: Any,
) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name or f"{service}-1",
            "namespace": namespace,
            "labels": {SERVICE_NAME_LABEL: service},
        },
        "addressType": "IPv4",
        "ports": [dict(port) for port in ports],
        "endpoints": list(endpoints),
        **fields,
    }


def endpoint(
    address: str,
    conditions: Mapping[str, bool] = READY,
    *,
    node: str = "",
    zones: Sequence[str] = (),
    nodes: Sequence[str] = (),
) -> Object:
    hints = {"forZones": [{"name": zone} for zone in zones], "forNodes": [{"name": each} for each in nodes]}
    return {
        "addresses": [address],
        "conditions": dict(conditions),
        **({"nodeName": node} if node else {}),
        **({"hints": {field: names for field, names in hints.items() if names}} if zones or nodes else {}),
    }
