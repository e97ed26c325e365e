"""What is to be served: Services and EndpointSlices become virtual ports. Pure.

    Service + its slices ─ offers_of ─▶ Offer: a port and every endpoint that may stand for it
    Offer + Location ─ at ─▶ VirtualPort: the endpoints that one node sends connections to

Most offers come to the same on every node; those with a Local traffic policy or topology hints do not. Endpoints are
selected as kube-proxy does it (pkg/proxy/topology.go): those that are ready, by topology; where there are none, those
that still serve while they terminate (KEP-1669). `publishNotReadyAddresses` needs nothing here: the slices say `ready`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from socket import AF_INET, inet_pton
from typing import Any, NamedTuple

from testbed.api.objects import Key, Object, key, labels, namespace, spec, status
from testbed.api.wellknown import HEADLESS_LABEL, SERVICE_NAME_LABEL, SERVICE_PROXY_NAME_LABEL
from testbed.proxy.virtualport import Endpoint, HealthCheck, VirtualPort


class Location(NamedTuple):
    """Where a node is; the zone may be empty."""

    node: str
    zone: str = ""


class Candidate(NamedTuple):
    """An endpoint, and what decides whether a node sends connections to it."""

    endpoint: Endpoint
    node: str
    is_ready: bool
    is_draining: bool
    """It serves, and terminates."""
    for_nodes: frozenset[str] = frozenset()
    for_zones: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Offer:
    """One port of a Service, before any node has chosen."""

    port: VirtualPort
    """All but its endpoints."""
    candidates: tuple[Candidate, ...]

    @property
    def is_same_everywhere(self) -> bool:
        """Whether every node serves it alike."""
        if self.port.is_internal_local or self.port.is_external_local:
            return False
        ready = [each for each in self.candidates if each.is_ready]
        return not (ready and (all(each.for_nodes for each in ready) or all(each.for_zones for each in ready)))

    def at(self, here: Location, before: VirtualPort | None = None) -> VirtualPort:
        """As the node there serves it, with endpoints in the slots that they had `before`."""
        ready = [each for each in self.candidates if each.is_ready]
        draining = [each for each in self.candidates if each.is_draining]
        is_local_needed = self.port.is_internal_local or self.port.is_external_local
        cluster = _endpoints(_near(ready, here) or draining)
        local = _endpoints(_on(ready, here) or _on(draining, here)) if is_local_needed else set[Endpoint]()
        return replace(
            self.port,
            cluster=arrange(before.cluster if before else (), cluster),
            local=arrange(before.local if before else (), local),
            has_endpoints=bool(ready or draining),
            serving=frozenset(_endpoints([*ready, *draining])),
        )


def offers_of(service: Object, slices: Collection[Object]) -> tuple[Offer, ...]:
    """The ports of one Service; none where it has no IPv4 ClusterIP or is left to another proxy."""
    wanted = spec(service)
    address = _cluster_ip(wanted)
    if address is None or {SERVICE_PROXY_NAME_LABEL, HEADLESS_LABEL} & labels(service).keys():
        return ()
    return tuple(
        Offer(_port(service, address, port), _candidates(port.get("name") or "", _protocol(port), slices))
        for port in wanted.get("ports") or ()
    )


def health_check(service: Object, offers: Iterable[Offer], here: Location) -> HealthCheck | None:
    """What the node answers at the Service's healthCheckNodePort; None where it has none.

    Endpoints that terminate do not count (pkg/proxy/healthcheck): the load balancer is to turn away in time.
    """
    number = int(spec(service).get("healthCheckNodePort") or 0)
    if not number:
        return None
    candidates = (each for offer in offers for each in offer.candidates)
    local = {each.endpoint.address for each in candidates if each.is_ready and each.node == here.node}
    return HealthCheck(number, len(local))


def service_of(slice_: Object) -> Key | None:
    """The Service that a slice belongs to; None for one that belongs to none."""
    name = labels(slice_).get(SERVICE_NAME_LABEL)
    return Key(namespace(slice_), name) if name else None


def arrange(before: Sequence[Endpoint], wanted: Collection[Endpoint]) -> tuple[Endpoint, ...]:
    """Slots for the wanted endpoints, leaving as many as possible where they were.

    Newcomers take the slots of those that left, then the end; a hole that remains is filled from the end.
    """
    missing = sorted(set(wanted).difference(before), reverse=True)
    slots: list[Endpoint | None] = [endpoint if endpoint in wanted else None for endpoint in before]
    for at, endpoint in enumerate(slots):
        if endpoint is None and missing:
            slots[at] = missing.pop()
    slots.extend(reversed(missing))
    while None in slots:
        last = slots.pop()
        if last is not None:
            slots[slots.index(None)] = last
    return tuple(endpoint for endpoint in slots if endpoint is not None)


def _port(service: Object, address: IPv4Address, port: Mapping[str, Any]) -> VirtualPort:
    wanted = spec(service)
    affinity = (wanted.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return VirtualPort(
        service=key(service),
        name=port.get("name") or "",
        protocol=_protocol(port),
        cluster_ip=address,
        port=int(port["port"]),
        node_port=int(port.get("nodePort") or 0),
        external_ips=_addresses(wanted.get("externalIPs") or ()),
        load_balancer_ips=_addresses(_load_balancer(service)),
        source_ranges=_networks(wanted.get("loadBalancerSourceRanges") or ()),
        affinity_s=int(affinity.get("timeoutSeconds") or 10800) if wanted.get("sessionAffinity") == "ClientIP" else 0,
        is_internal_local=wanted.get("internalTrafficPolicy") == "Local",
        is_external_local=wanted.get("externalTrafficPolicy") == "Local",
    )


def _protocol(port: Mapping[str, Any]) -> str:
    return str(port.get("protocol") or "TCP").lower()


def _load_balancer(service: Object) -> Iterator[str]:
    """The addresses whose packets arrive untranslated (ipMode VIP, which is the default; KEP-1860)."""
    for each in (status(service).get("loadBalancer") or {}).get("ingress") or ():
        if each.get("ip") and each.get("ipMode", "VIP") == "VIP":
            yield each["ip"]


def _addresses(written: Iterable[str]) -> tuple[IPv4Address, ...]:
    return tuple(dict.fromkeys(_address(each) for each in written if ":" not in each))


def _networks(written: Iterable[str]) -> tuple[IPv4Network, ...]:
    return tuple(IPv4Network(each.strip(), strict=False) for each in written if ":" not in each)


def _cluster_ip(wanted: Mapping[str, Any]) -> IPv4Address | None:
    if wanted.get("type") == "ExternalName":
        return None
    addresses = wanted.get("clusterIPs") or [wanted.get("clusterIP")]
    return next((_address(each) for each in addresses if each and each != "None" and ":" not in each), None)


def _candidates(name: str, protocol: str, slices: Collection[Object]) -> tuple[Candidate, ...]:
    """Every endpoint of the port of that name; of one that is in two slices for a moment, the better of the two."""
    found: dict[Endpoint, Candidate] = {}
    for number, endpoint in _targets(name, protocol, slices):
        candidate = _candidate(number, endpoint)
        known = found.get(candidate.endpoint)
        if known is None or (candidate.is_ready, candidate.is_draining) > (known.is_ready, known.is_draining):
            found[candidate.endpoint] = candidate
    return tuple(found.values())


def _candidate(number: int, endpoint: Mapping[str, Any]) -> Candidate:
    conditions, hints = endpoint.get("conditions") or {}, endpoint.get("hints") or {}
    is_ready = conditions.get("ready") is not False
    return Candidate(
        endpoint=Endpoint(_address(endpoint["addresses"][0]), number),
        node=endpoint.get("nodeName") or "",
        is_ready=is_ready,
        is_draining=not is_ready and bool(conditions.get("serving") and conditions.get("terminating")),
        for_nodes=_names(hints.get("forNodes")),
        for_zones=_names(hints.get("forZones")),
    )


def _targets(name: str, protocol: str, slices: Collection[Object]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Every endpoint of the port of that name, with the number the port has in its slice."""
    for each in slices:
        if each.get("addressType", "IPv4") != "IPv4":
            continue
        for port in each.get("ports") or ():
            if (port.get("name") or "") == name and _protocol(port) == protocol and port.get("port"):
                yield from (
                    (int(port["port"]), endpoint) for endpoint in each.get("endpoints") or () if endpoint["addresses"]
                )


def _address(written: str) -> IPv4Address:
    """The C library reads thirty thousand of them in a quarter of the time that Python takes."""
    return IPv4Address(inet_pton(AF_INET, written))


def _names(hints: Iterable[Mapping[str, str]] | None) -> frozenset[str]:
    return frozenset(each["name"] for each in hints or ())


def _near(ready: Sequence[Candidate], here: Location) -> Sequence[Candidate]:
    """Those meant for this node, or else for its zone; all of them, where a single one has no hint or none is meant
    for here: hints are followed entirely or not at all."""
    hints: tuple[tuple[str, Callable[[Candidate], frozenset[str]]], ...] = (
        (here.node, lambda each: each.for_nodes),
        (here.zone, lambda each: each.for_zones),
    )
    for where, hint in hints:
        if where and all(hint(each) for each in ready):
            meant = [each for each in ready if where in hint(each)]
            if meant:
                return meant
    return ready


def _on(candidates: Iterable[Candidate], here: Location) -> list[Candidate]:
    return [each for each in candidates if each.node == here.node]


def _endpoints(candidates: Iterable[Candidate]) -> set[Endpoint]:
    return {each.endpoint for each in candidates}
