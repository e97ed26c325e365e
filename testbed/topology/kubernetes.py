"""The Service `default/kubernetes` of a cluster: the API server, as pods reach it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed.api.kinds import ENDPOINT_SLICE, ENDPOINTS, SERVICE, Kind
from testbed.api.objects import Object
from testbed.api.wellknown import API_PORT, MANAGED_BY_LABEL, SERVICE_NAME_LABEL, SKIP_MIRROR_LABEL
from testbed.topology.spec import ClusterSpec

NAME, NAMESPACE = "kubernetes", "default"
HTTPS = 443
COMPONENT_LABELS = {"component": "apiserver", "provider": "kubernetes"}


def kubernetes_objects(spec: ClusterSpec) -> tuple[Object, Object, Object]:
    """The Service, its Endpoints and its EndpointSlice."""
    address, endpoint = str(spec.services.kubernetes), str(spec.underlay.control_plane)
    port = {"name": "https", "port": HTTPS, "protocol": "TCP", "targetPort": API_PORT}
    ports = [{"name": "https", "port": API_PORT, "protocol": "TCP"}]
    of_slice = {SERVICE_NAME_LABEL: NAME, MANAGED_BY_LABEL: "control-plane.testbed"}
    return (
        _object(SERVICE, COMPONENT_LABELS, spec={"clusterIP": address, "clusterIPs": [address], "ports": [port]}),
        _object(
            ENDPOINTS,
            {SKIP_MIRROR_LABEL: "true"},
            subsets=[{"addresses": [{"ip": endpoint}], "ports": ports}],
        ),
        _object(
            ENDPOINT_SLICE,
            of_slice,
            addressType="IPv4",
            endpoints=[{"addresses": [endpoint], "conditions": {"ready": True}}],
            ports=ports,
        ),
    )


def _object(kind: Kind, labels: Mapping[str, str], **fields: Any) -> Object:
    meta = {"name": NAME, "namespace": NAMESPACE, "labels": dict(labels)}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, **fields}
