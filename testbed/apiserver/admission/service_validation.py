"""What may not stand in a Service, in Kubernetes' words (`ValidateService` of `pkg/apis/core/validation`)."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.api.objects import Object, metadata, spec
from testbed.apiserver.admission import names
from testbed.apiserver.admission.networks import cidr, ip_address, parsed_ip, public_ip
from testbed.apiserver.admission.pod_validation import PROTOCOLS, port_number, port_or_name
from testbed.apiserver.admission.service_types import (
    HEADLESS,
    TYPES,
    Fields,
    has_cluster_ip,
    is_balanced,
    is_external,
    is_headless,
    needs_health_check,
)
from testbed.apiserver.refusals import Cause, duplicate, forbidden_field, invalid, required, unsupported

MAX_AFFINITY_TIMEOUT_S = 86400
POLICIES = ("Cluster", "Local")
DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
IP_MODES = ("Proxy", "VIP")
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
BALANCED_ONLY = "may only be used when `type` is 'LoadBalancer'"
LOCAL_ONLY = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"


def validate_service(service: Object) -> Iterator[Cause]:
    """Mistakes of a Service, but for those of values that it asks for, which allocation finds."""
    fields = spec(service)
    yield from _type(fields)
    yield from _ports(fields)
    yield from names.check_labels(fields.get("selector", {}), "spec.selector")
    yield from _affinity(fields)
    if has_cluster_ip(fields):
        yield from _cluster_ips(fields)
        yield from _families(fields)
    for index, address in enumerate(fields.get("externalIPs", [])):
        yield from public_ip(address, f"spec.externalIPs[{index}]")
    yield from _source_ranges(service)
    yield from _load_balancer(fields)
    yield from _policies(fields)


def validate_service_update(service: Object, old: Object) -> Iterator[Cause]:
    """A Service keeps its address for as long as its type has one, and its load balancer's class likewise."""
    fields, before = spec(service), spec(old)
    if has_cluster_ip(fields) and has_cluster_ip(before) and fields.get("clusterIPs") != before.get("clusterIPs"):
        yield invalid("spec.clusterIPs[0]", fields.get("clusterIPs", []), "may not change once set")
    name, check = "loadBalancerClass", "healthCheckNodePort"
    if is_balanced(fields) and is_balanced(before) and fields.get(name) != before.get(name):
        yield invalid(f"spec.{name}", fields.get(name), "may not change once set")
    if needs_health_check(fields) and needs_health_check(before) and fields.get(check) != before.get(check):
        yield forbidden_field(f"spec.{check}", "field is immutable")
    yield from validate_service(service)


def validate_service_status(service: Object) -> Iterator[Cause]:
    """Mistakes of a status that somebody writes."""
    field = "status.loadBalancer.ingress"
    ingresses = (service["status"].get("loadBalancer") or {}).get("ingress", [])
    if ingresses and not is_balanced(spec(service)):
        yield forbidden_field(field, 'may only be used when `spec.type` is "LoadBalancer"')
        return
    for index, ingress in enumerate(ingresses):
        yield from _ingress(ingress, f"{field}[{index}]")


def _type(fields: Fields) -> Iterator[Cause]:
    if fields["type"] not in TYPES:
        yield unsupported("spec.type", fields["type"], TYPES)
    if fields["type"] == "ExternalName":
        yield from _external_name(fields)
    elif not fields.get("ports") and not is_headless(fields):
        yield required("spec.ports")
    if is_headless(fields) and fields["type"] in {"NodePort", "LoadBalancer"}:
        yield invalid("spec.clusterIPs[0]", HEADLESS, f"may not be set to 'None' for {fields['type']} services")


def _external_name(fields: Fields) -> Iterator[Cause]:
    for name in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if fields.get(name):
            yield forbidden_field(f"spec.{name}", "may not be set for ExternalName services")
    if not fields.get("externalName"):
        yield required("spec.externalName")
    else:
        yield from names.checked(names.DNS_SUBDOMAIN, fields["externalName"].removesuffix("."), "spec.externalName")


def _ports(fields: Fields) -> Iterator[Cause]:
    ports = fields.get("ports", [])
    taken: set[object] = set()
    for index, port in enumerate(ports):
        field, name = f"spec.ports[{index}]", port.get("name", "")
        if not name and len(ports) > 1:
            yield required(f"{field}.name")
        yield from _port(port, field)
        if port.get("nodePort") and fields["type"] == "ClusterIP":
            yield forbidden_field(f"{field}.nodePort", "may not be used when `type` is 'ClusterIP'")
        served = {"port": port.get("port"), "protocol": port["protocol"]}
        node_port = port.get("nodePort")
        for key, cause in (
            (name and ("name", name), duplicate(f"{field}.name", name)),
            (("port", *served.values()), duplicate(field, served)),
            (node_port and ("node", node_port, port["protocol"]), duplicate(f"{field}.nodePort", node_port)),
        ):
            if key and key in taken:
                yield cause
            taken.add(key)


def _port(port: Fields, field: str) -> Iterator[Cause]:
    if port.get("name"):
        yield from names.checked(names.DNS_LABEL, port["name"], f"{field}.name")
    yield from port_number(port.get("port", 0), f"{field}.port")
    if port["protocol"] not in PROTOCOLS:
        yield unsupported(f"{field}.protocol", port["protocol"], PROTOCOLS)
    if "targetPort" in port:
        yield from port_or_name(port["targetPort"], f"{field}.targetPort")
    if port.get("appProtocol"):
        yield from names.qualified_name(port["appProtocol"], f"{field}.appProtocol")


def _affinity(fields: Fields) -> Iterator[Cause]:
    if fields["sessionAffinity"] not in {"None", "ClientIP"}:
        yield unsupported("spec.sessionAffinity", fields["sessionAffinity"], ("ClientIP", "None"))
    timeout_s = fields.get("sessionAffinityConfig", {}).get("clientIP", {}).get("timeoutSeconds", 1)
    if not 0 < timeout_s <= MAX_AFFINITY_TIMEOUT_S:
        yield invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds", timeout_s,
            f"must be greater than 0 and less than {MAX_AFFINITY_TIMEOUT_S}",
        )  # fmt: skip


def _cluster_ips(fields: Fields) -> Iterator[Cause]:
    field, first, addresses = "spec.clusterIPs", fields.get("clusterIP", ""), fields.get("clusterIPs", [])
    if first and first not in addresses[:1]:
        yield invalid(field, addresses, "first value must match `clusterIP`")
    if addresses and not first:
        yield invalid(field, addresses, "must be empty when `clusterIP` is not specified")
    if HEADLESS in addresses and len(addresses) > 1:
        yield invalid(field, addresses, "'None' must be the first and only value")
        return
    for index, address in enumerate(addresses):
        if address != HEADLESS:
            yield from ip_address(address, f"{field}[{index}]")
    if sum(parsed_ip(address) is not None for address in addresses) > 1:
        yield invalid(field, addresses, "may specify no more than one IP for each IP family")


def _families(fields: Fields) -> Iterator[Cause]:
    for index, family in enumerate(families := fields.get("ipFamilies", [])):
        if family not in {"IPv4", "IPv6"}:
            yield unsupported(f"spec.ipFamilies[{index}]", family, ("IPv4", "IPv6"))
        elif family in families[:index]:
            yield duplicate(f"spec.ipFamilies[{index}]", family)
        elif family != "IPv4":
            yield invalid(f"spec.ipFamilies[{index}]", family, "not configured on this cluster")
    policy, policies = fields.get("ipFamilyPolicy"), ("PreferDualStack", "RequireDualStack", "SingleStack")
    if policy == "RequireDualStack":
        yield invalid("spec.ipFamilyPolicy", policy, "this cluster is not configured for dual-stack services")
    elif policy not in policies:
        yield unsupported("spec.ipFamilyPolicy", policy, policies)


def _source_ranges(service: Object) -> Iterator[Cause]:
    fields = spec(service)
    ranges, noted = (
        fields.get("loadBalancerSourceRanges", []),
        (metadata(service).get("annotations") or {}).get(SOURCE_RANGES),
    )
    field = "spec.LoadBalancerSourceRanges" if ranges else f"metadata.annotations[{SOURCE_RANGES}]"
    if (ranges or noted is not None) and not is_balanced(fields):
        yield forbidden_field(field, BALANCED_ONLY)
    for index, network in enumerate(ranges):  # blanks around one are allowed, by an accident of history
        yield from cidr(network.strip(), f"{field}[{index}]")
    for network in (noted or "").split(",") if noted and noted.strip() and not ranges else ():
        yield from cidr(network.strip(), field)


def _load_balancer(fields: Fields) -> Iterator[Cause]:
    name = fields.get("loadBalancerClass")
    if is_balanced(fields):
        if name is not None:
            yield from names.qualified_name(name, "spec.loadBalancerClass")
        return
    if name is not None:
        yield forbidden_field("spec.loadBalancerClass", BALANCED_ONLY)
    if "allocateLoadBalancerNodePorts" in fields:
        yield forbidden_field("spec.allocateLoadBalancerNodePorts", BALANCED_ONLY)


def _policies(fields: Fields) -> Iterator[Cause]:
    external, internal = fields.get("externalTrafficPolicy", ""), fields.get("internalTrafficPolicy")
    if external and not is_external(fields):
        yield invalid("spec.externalTrafficPolicy", external, "may only be set for externally-accessible services")
    elif is_external(fields) and external not in POLICIES:
        yield unsupported("spec.externalTrafficPolicy", external, POLICIES)
    if internal is not None and internal not in POLICIES:
        yield unsupported("spec.internalTrafficPolicy", internal, POLICIES)
    check = fields.get("healthCheckNodePort", 0)
    if needs_health_check(fields):
        if not check:
            yield required("spec.healthCheckNodePort")
    elif check:
        yield invalid("spec.healthCheckNodePort", check, LOCAL_ONLY)
    distribution = fields.get("trafficDistribution")
    if distribution is not None and distribution not in DISTRIBUTIONS:
        yield unsupported("spec.trafficDistribution", distribution, DISTRIBUTIONS)


def _ingress(ingress: Fields, field: str) -> Iterator[Cause]:
    address, mode, hostname = ingress.get("ip"), ingress.get("ipMode"), ingress.get("hostname")
    if address:
        yield from ip_address(address, f"{field}.ip")
    if mode is not None and not address:
        yield forbidden_field(f"{field}.ipMode", "may not be specified when `ip` is not set")
    elif mode is not None and mode not in IP_MODES:
        yield unsupported(f"{field}.ipMode", mode, IP_MODES)
    if hostname:
        yield from names.checked(names.DNS_SUBDOMAIN, hostname, f"{field}.hostname")
        if parsed_ip(hostname) is not None:
            yield invalid(f"{field}.hostname", hostname, "must be a DNS name, not an IP address")
