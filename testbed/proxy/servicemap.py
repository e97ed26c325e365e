"""What is to be served: Services and EndpointSlices become virtual ports. Pure.

A virtual port is an address, protocol and port at which no process listens, and the endpoints that stand for it.
Endpoints are selected as kube-proxy does it (KEP-1669): those that are ready; where there are none, those that still
serve while they terminate. `publishNotReadyAddresses` needs nothing here: the slices say `ready` then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, NamedTuple

from testbed.api.objects import Key, Object, key, labels, namespace, spec
from testbed.api.wellknown import HEADLESS_LABEL, SERVICE_NAME_LABEL, SERVICE_PROXY_NAME_LABEL


class Endpoint(NamedTuple):
    """Where a connection goes in the end."""

    address: IPv4Address
    port: int


@dataclass(frozen=True)
class VirtualPort:
    """One port of a Service at its ClusterIP."""

    address: IPv4Address
    protocol: str
    """tcp, udp or sctp."""
    port: int
    endpoints: tuple[Endpoint, ...]
    """That take new connections; the position of each is its slot in the kernel's map. Empty: refused."""
    serving: frozenset[Endpoint] = frozenset()
    """That may keep the flows they have: ready, or serving while they terminate."""


def virtual_ports(services: Iterable[Object], slices: Iterable[Object]) -> list[VirtualPort]:
    """Every virtual port of a cluster."""
    by_service: dict[Key | None, list[Object]] = {}
    for each in slices:
        by_service.setdefault(service_of(each), []).append(each)
    return [port for service in services for port in service_ports(service, by_service.get(key(service), ()))]


def service_ports(service: Object, slices: Collection[Object]) -> tuple[VirtualPort, ...]:
    """The virtual ports of one Service; none where it has no IPv4 ClusterIP or is left to another proxy."""
    wanted = spec(service)
    address = _cluster_ip(wanted)
    if address is None or {SERVICE_PROXY_NAME_LABEL, HEADLESS_LABEL} & labels(service).keys():
        return ()
    return tuple(_virtual_port(address, port, slices) for port in wanted.get("ports") or ())


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


def _cluster_ip(wanted: Mapping[str, Any]) -> IPv4Address | None:
    if wanted.get("type") == "ExternalName":
        return None
    addresses = wanted.get("clusterIPs") or [wanted.get("clusterIP")]
    return next((IPv4Address(each) for each in addresses if each and each != "None" and ":" not in each), None)


def _virtual_port(address: IPv4Address, port: Mapping[str, Any], slices: Collection[Object]) -> VirtualPort:
    protocol = (port.get("protocol") or "TCP").lower()
    ready: set[Endpoint] = set()
    terminating: set[Endpoint] = set()
    for number, endpoint in _targets(port.get("name") or "", protocol, slices):
        conditions = endpoint.get("conditions") or {}
        is_ready = conditions.get("ready") is not False
        found = {Endpoint(IPv4Address(each), number) for each in endpoint.get("addresses") or ()}
        if is_ready:
            ready |= found
        elif conditions.get("serving") and conditions.get("terminating"):
            terminating |= found
    endpoints = arrange((), ready or terminating)
    return VirtualPort(address, protocol, int(port["port"]), endpoints, frozenset(ready | terminating))


def _targets(name: str, protocol: str, slices: Collection[Object]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Every endpoint of the port of that name, with the number the port has in its slice."""
    for each in slices:
        if each.get("addressType", "IPv4") != "IPv4":
            continue
        for port in each.get("ports") or ():
            is_it = (port.get("name") or "") == name and (port.get("protocol") or "TCP").lower() == protocol
            if is_it and port.get("port"):
                yield from ((int(port["port"]), endpoint) for endpoint in each.get("endpoints") or ())
