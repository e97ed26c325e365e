"""Services: shape, defaults, and what a new version keeps of the old one.

Sources: `pkg/apis/core/v1/defaults.go`, `pkg/registry/core/service` (`patchAllocatedValues`, `normalizeClusterIPs`,
`dropTypeDependentFields`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testbed.api.objects import Object, spec
from testbed.apiserver.admission.service_types import (
    Fields,
    allocates_node_ports,
    has_cluster_ip,
    has_node_ports,
    is_balanced,
    is_external,
    needs_health_check,
    node_ports_of,
)
from testbed.apiserver.admission.shapes import (
    CONDITION,
    anything,
    boolean,
    integer,
    integer_or_text,
    kind_shape,
    list_of,
    map_of,
    struct,
    text,
)

AFFINITY_TIMEOUT_S = 10800
_PORT = struct(name=text, port=integer, protocol=text, targetPort=integer_or_text, nodePort=integer, appProtocol=text)
_INGRESS = struct(ip=text, hostname=text, ipMode=text, ports=list_of(anything))
SERVICE_SHAPE = kind_shape(
    spec=struct(
        type=text,
        selector=map_of(text),
        ports=list_of(_PORT),
        clusterIP=text,
        clusterIPs=list_of(text),
        ipFamilies=list_of(text),
        ipFamilyPolicy=text,
        externalIPs=list_of(text),
        externalName=text,
        sessionAffinity=text,
        sessionAffinityConfig=struct(clientIP=struct(timeoutSeconds=integer)),
        externalTrafficPolicy=text,
        internalTrafficPolicy=text,
        healthCheckNodePort=integer,
        publishNotReadyAddresses=boolean,
        loadBalancerIP=text,
        loadBalancerSourceRanges=list_of(text),
        loadBalancerClass=text,
        allocateLoadBalancerNodePorts=boolean,
        trafficDistribution=text,
    ),
    status=struct(loadBalancer=struct(ingress=list_of(_INGRESS)), conditions=list_of(CONDITION)),
)

OF_TYPES: tuple[tuple[Callable[[Fields], bool], tuple[str, ...]], ...] = (
    (has_cluster_ip, ("clusterIPs", "clusterIP")),
    (has_cluster_ip, ("ipFamilies",)),
    (has_cluster_ip, ("ipFamilyPolicy",)),
    (needs_health_check, ("healthCheckNodePort",)),
    (is_balanced, ("allocateLoadBalancerNodePorts",)),
    (is_balanced, ("loadBalancerClass",)),
    (is_external, ("externalTrafficPolicy",)),
)
"""Fields that only some Services have. They go with the type that had them, unless somebody gives them a new value:
then validation says that they are out of place."""


def default_service(service: Object) -> None:
    """Fill in everything but addresses, which `addresses.ServiceAddresses` allocates."""
    fields = service.setdefault("spec", {})
    service["status"] = {"loadBalancer": {}, **service.get("status", {})}
    fields.setdefault("type", "ClusterIP")
    fields.setdefault("sessionAffinity", "None")
    if fields.get("clusterIP") and not fields.get("clusterIPs"):
        fields["clusterIPs"] = [fields["clusterIP"]]
    for port in fields.get("ports", []):
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, 0, "") and "port" in port:
            port["targetPort"] = port["port"]
    _default_affinity(fields)
    _default_policies(fields)
    if has_cluster_ip(fields):
        fields.setdefault("ipFamilies", ["IPv4"])
        fields.setdefault("ipFamilyPolicy", "SingleStack")


def default_service_status(service: Object) -> None:
    """An address that says nothing of its mode is one that packets keep (KEP-1860)."""
    for ingress in (service["status"].get("loadBalancer") or {}).get("ingress", []):
        if ingress.get("ip"):
            ingress.setdefault("ipMode", "VIP")


def settle_service(service: Object, old: Object) -> None:
    """What was allocated is kept where the new version says nothing of it; what only the former type had goes."""
    fields, before = service["spec"], spec(old)
    _keep_addresses(fields, before)
    if allocates_node_ports(before) and allocates_node_ports(fields):
        _keep_node_ports(fields, before)
    if needs_health_check(before) and needs_health_check(fields) and before.get("healthCheckNodePort"):
        fields.setdefault("healthCheckNodePort", before["healthCheckNodePort"])
    for applies, names in OF_TYPES:
        is_same = fields.get(names[0]) == before.get(names[0])
        if applies(before) and not applies(fields) and is_same:
            for name in names:
                fields.pop(name, None)
    if has_node_ports(before) and not has_node_ports(fields):
        _drop_node_ports(fields, before)
    if not is_balanced(fields):
        service["status"] = {**service["status"], "loadBalancer": {}}


def _default_affinity(fields: dict[str, Any]) -> None:
    if fields["sessionAffinity"] == "ClientIP":
        config = fields.setdefault("sessionAffinityConfig", {})
        config.setdefault("clientIP", {}).setdefault("timeoutSeconds", AFFINITY_TIMEOUT_S)
    elif fields["sessionAffinity"] == "None":
        fields.pop("sessionAffinityConfig", None)


def _default_policies(fields: dict[str, Any]) -> None:
    if fields["type"] in {"ClusterIP", "NodePort", "LoadBalancer"}:
        fields.setdefault("internalTrafficPolicy", "Cluster")
    if is_external(fields):
        fields.setdefault("externalTrafficPolicy", "Cluster")
    if is_balanced(fields):
        fields.setdefault("allocateLoadBalancerNodePorts", True)


def _keep_addresses(fields: dict[str, Any], before: Fields) -> None:
    if not (has_cluster_ip(fields) and has_cluster_ip(before)):
        return
    if not fields.get("clusterIP"):
        fields["clusterIP"] = before["clusterIP"]
    # Whoever writes clusterIP alone means both fields.
    if not fields.get("clusterIPs") or (
        fields["clusterIPs"] == before["clusterIPs"] and fields["clusterIP"] != before["clusterIP"]
    ):
        fields["clusterIPs"] = [fields["clusterIP"]]


def _keep_node_ports(fields: dict[str, Any], before: Fields) -> None:
    """By the port's name, then by its number and protocol."""
    by_name = {port.get("name", ""): port.get("nodePort") for port in before.get("ports", [])}
    by_number = {_served(port): port.get("nodePort") for port in before.get("ports", [])}
    used = set(node_ports_of(fields)) & set(node_ports_of(before))
    for port in fields.get("ports", []):
        had = by_name.get(port.get("name", "")), by_number.get(_served(port))
        if not port.get("nodePort") and (number := next((n for n in had if n and n not in used), None)):
            port["nodePort"] = number
            used.add(number)


def _drop_node_ports(fields: dict[str, Any], before: Fields) -> None:
    """All, unless a new one is asked for, which validation refuses."""
    if set(node_ports_of(fields)) <= set(node_ports_of(before)):
        for port in fields.get("ports", []):
            port.pop("nodePort", None)


def _served(port: Fields) -> tuple[Any, Any]:
    return port.get("port"), port.get("protocol")
