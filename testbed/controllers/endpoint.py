"""From a pod to what a Service tells of it: its endpoint and the ports it serves there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.api.objects import Object, is_deleting, is_ready, name, namespace, spec, status, uid
from testbed.controllers.cluster import has_ended, node_of

IPV4, IPV6 = "IPv4", "IPv6"
SAME_NODE = "PreferSameNode"
NEAR = ("PreferClose", "PreferSameZone", SAME_NODE)
"""The values of trafficDistribution; the first two mean the same (KEP-3015)."""


@dataclass(frozen=True, order=True)
class Port:
    """One port of a slice, its target resolved to a number."""

    name: str
    protocol: str
    number: int
    app_protocol: str = ""

    def document(self) -> dict[str, Any]:
        """As an EndpointSlice or Endpoints writes it."""
        written = {"name": self.name, "protocol": self.protocol, "port": self.number}
        return written | ({"appProtocol": self.app_protocol} if self.app_protocol else {})


Ports = tuple[Port, ...]


def families_of(service: Object) -> Sequence[str]:
    """spec.ipFamilies; one family where the Service does not say."""
    return spec(service).get("ipFamilies") or (IPV4,)


def addresses_of(pod: Object, family: str) -> list[str]:
    """The pod's addresses of that family."""
    told = [entry["ip"] for entry in status(pod).get("podIPs") or [] if entry.get("ip")]
    told = told or [ip for ip in [status(pod).get("podIP")] if ip]
    return [ip for ip in told if (":" in ip) == (family == IPV6)]


def can_serve(pod: Object) -> bool:
    """Whether the pod is an endpoint at all: it has an address and has not ended."""
    return bool(status(pod).get("podIP")) and not has_ended(pod)


def ports_of(service: Object, pod: Object) -> Ports:
    """The Service's ports at that pod. A name that none of the pod's containers gives is left out (FindPort)."""
    found = []
    for port in spec(service).get("ports") or []:
        protocol = port.get("protocol", "TCP")
        number = _resolved(port.get("targetPort", port.get("port")), protocol, pod)
        if number:
            found.append(Port(port.get("name", ""), protocol, number, port.get("appProtocol", "")))
    return tuple(sorted(found))


def endpoint_of(service: Object, pod: Object, family: str, zone: str) -> dict[str, Any]:
    """The pod as an endpoint. Conditions as Kubernetes has them: `serving` is readiness alone; `ready` also asks that
    the pod is not being deleted, unless publishNotReadyAddresses says that it always is."""
    serving, terminating = is_ready(pod), is_deleting(pod)
    ready = bool(spec(service).get("publishNotReadyAddresses")) or (serving and not terminating)
    return {
        "addresses": addresses_of(pod, family),
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "nodeName": node_of(pod),
        "targetRef": target_of(pod),
        **({"hostname": hostname} if (hostname := hostname_in(service, pod)) else {}),
        **({"zone": zone} if zone else {}),
        **({"hints": hints} if ready and (hints := hints_for(service, node_of(pod), zone)) else {}),
    }


def hints_for(service: Object, node: str, zone: str) -> dict[str, Any]:
    """For which clients an endpoint there is meant, by the Service's trafficDistribution: those of its zone, and with
    PreferSameNode of its node. Empty: for all."""
    wanted = spec(service).get("trafficDistribution")
    zones = {"forZones": [{"name": zone}]} if wanted in NEAR and zone else {}
    nodes = {"forNodes": [{"name": node}]} if wanted == SAME_NODE and node else {}
    return {**zones, **nodes}


def target_of(pod: Object) -> dict[str, str]:
    """The reference from an endpoint to its pod."""
    return {"kind": "Pod", "namespace": namespace(pod), "name": name(pod), "uid": uid(pod)}


def hostname_in(service: Object, pod: Object) -> str:
    """The name that the pod has in the Service's domain: its hostname, where its subdomain is the Service."""
    same = spec(pod).get("subdomain") == name(service) and namespace(pod) == namespace(service)
    return str(spec(pod).get("hostname") or "") if same else ""


def _resolved(target: int | str | None, protocol: str, pod: Object) -> int:
    if isinstance(target, int):
        return target
    for port in _container_ports(pod):
        if port.get("name") == target and port.get("protocol", "TCP") == protocol:
            return int(port["containerPort"])
    return 0


def _container_ports(pod: Object) -> Iterable[dict[str, Any]]:
    for container in spec(pod).get("containers") or []:
        yield from container.get("ports") or []
    for container in spec(pod).get("initContainers") or []:
        if container.get("restartPolicy") == "Always":  # a sidecar (KEP-753)
            yield from container.get("ports") or []
