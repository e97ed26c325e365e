"""Services: shape, defaults and validation (`pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from testbed.api.objects import Object, spec
from testbed.apiserver.admission import names
from testbed.apiserver.admission.pod_validation import PROTOCOLS, ip_address, port_number, port_or_name
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
from testbed.apiserver.refusals import Cause, duplicate, forbidden_field, immutable, invalid, required, unsupported

Fields = Mapping[str, Any]

HEADLESS = "None"
TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
AFFINITY_TIMEOUT_S = 10800
MAX_AFFINITY_TIMEOUT_S = 86400

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


def default_service(service: Object) -> None:
    """Fill in everything but addresses, which `addresses.ServiceAddresses` allocates."""
    fields = service.setdefault("spec", {})
    service.setdefault("status", {}).setdefault("loadBalancer", {})
    fields.setdefault("type", "ClusterIP")
    fields.setdefault("sessionAffinity", "None")
    if not fields.get("clusterIP") and fields.get("clusterIPs"):
        fields["clusterIP"] = fields["clusterIPs"][0]
    for port in fields.get("ports", []):
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, 0, "") and "port" in port:
            port["targetPort"] = port["port"]
    _default_affinity(fields)
    _default_policies(fields)
    if fields["type"] != "ExternalName":
        fields.setdefault("ipFamilies", ["IPv4"])
        fields.setdefault("ipFamilyPolicy", "SingleStack")


def has_cluster_ip(fields: Fields) -> bool:
    """Whether a Service of this spec is reached by an address of its own."""
    return fields.get("type") != "ExternalName" and fields.get("clusterIP") != HEADLESS


def validate_service(service: Object) -> Iterator[Cause]:
    """Mistakes of a Service, but for its addresses."""
    fields = spec(service)
    if fields["type"] not in TYPES:
        yield unsupported("spec.type", fields["type"], TYPES)
    if fields["type"] == "ExternalName":
        yield from _external_name(fields)
    elif not fields.get("ports") and has_cluster_ip(fields):
        yield required("spec.ports")
    if fields.get("clusterIP") == HEADLESS and fields["type"] in {"NodePort", "LoadBalancer"}:
        yield invalid("spec.clusterIPs[0]", HEADLESS, f"may not be set to 'None' for {fields['type']} services")
    yield from _ports(fields)
    yield from names.check_labels(fields.get("selector", {}), "spec.selector")
    yield from _affinity(fields)
    yield from _policies(fields)
    for index, address in enumerate(fields.get("externalIPs", [])):
        yield from ip_address(address, f"spec.externalIPs[{index}]")


def validate_service_update(service: Object, old: Object) -> Iterator[Cause]:
    """A Service keeps its address for as long as its type has one."""
    yield from validate_service(service)
    fields, before = spec(service), spec(old)
    if "ExternalName" not in {fields["type"], before["type"]} and fields.get("clusterIP") != before.get("clusterIP"):
        yield immutable("spec.clusterIPs[0]", fields.get("clusterIPs", []))


def _default_affinity(fields: dict[str, Any]) -> None:
    if fields["sessionAffinity"] == "ClientIP":
        config = fields.setdefault("sessionAffinityConfig", {})
        config.setdefault("clientIP", {}).setdefault("timeoutSeconds", AFFINITY_TIMEOUT_S)
    elif fields["sessionAffinity"] == "None":
        fields.pop("sessionAffinityConfig", None)


def _default_policies(fields: dict[str, Any]) -> None:
    if fields["type"] in {"ClusterIP", "NodePort", "LoadBalancer"}:
        fields.setdefault("internalTrafficPolicy", "Cluster")
    if fields["type"] in {"NodePort", "LoadBalancer"} or fields.get("externalIPs"):
        fields.setdefault("externalTrafficPolicy", "Cluster")
    if fields["type"] == "LoadBalancer":
        fields.setdefault("allocateLoadBalancerNodePorts", True)


def _external_name(fields: Fields) -> Iterator[Cause]:
    if fields.get("clusterIP"):
        yield forbidden_field("spec.clusterIPs[0]", "may not be set for ExternalName services")
    if not fields.get("externalName"):
        yield required("spec.externalName")
    else:
        yield from names.checked(names.DNS_SUBDOMAIN, fields["externalName"].removesuffix("."), "spec.externalName")


def _ports(fields: Fields) -> Iterator[Cause]:
    ports = fields.get("ports", [])
    taken_names, taken = set(), set()
    for index, port in enumerate(ports):
        field, name = f"spec.ports[{index}]", port.get("name", "")
        if name:
            yield from names.checked(names.DNS_LABEL, name, f"{field}.name")
            if name in taken_names:
                yield duplicate(f"{field}.name", name)
            taken_names.add(name)
        elif len(ports) > 1:
            yield required(f"{field}.name")
        yield from port_number(port.get("port", 0), f"{field}.port")
        if port["protocol"] not in PROTOCOLS:
            yield unsupported(f"{field}.protocol", port["protocol"], PROTOCOLS)
        if "targetPort" in port:
            yield from port_or_name(port["targetPort"], f"{field}.targetPort")
        which = (port["protocol"], port.get("port"))
        if which in taken:
            yield duplicate(field, {"port": which[1], "protocol": which[0]})
        taken.add(which)


def _affinity(fields: Fields) -> Iterator[Cause]:
    if fields["sessionAffinity"] not in {"None", "ClientIP"}:
        yield unsupported("spec.sessionAffinity", fields["sessionAffinity"], ("ClientIP", "None"))
    timeout_s = fields.get("sessionAffinityConfig", {}).get("clientIP", {}).get("timeoutSeconds", 1)
    if not 0 < timeout_s <= MAX_AFFINITY_TIMEOUT_S:
        yield invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds", timeout_s,
            f"must be greater than 0 and less than {MAX_AFFINITY_TIMEOUT_S}",
        )  # fmt: skip


def _policies(fields: Fields) -> Iterator[Cause]:
    for name in ("externalTrafficPolicy", "internalTrafficPolicy"):
        if fields.get(name, "Cluster") not in {"Cluster", "Local"}:
            yield unsupported(f"spec.{name}", fields[name], ("Cluster", "Local"))
    if fields.get("ipFamilies", ["IPv4"]) != ["IPv4"]:
        yield invalid("spec.ipFamilies", fields["ipFamilies"], "this cluster has IPv4 only")
    if fields.get("ipFamilyPolicy", "SingleStack") not in {"SingleStack", "PreferDualStack"}:
        yield unsupported("spec.ipFamilyPolicy", fields["ipFamilyPolicy"], ("PreferDualStack", "SingleStack"))
