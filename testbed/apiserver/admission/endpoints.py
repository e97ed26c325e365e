"""Endpoints and EndpointSlices: shape, defaults and validation (`pkg/apis/core`, `pkg/apis/discovery`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from testbed.api.objects import Object
from testbed.apiserver.admission import names
from testbed.apiserver.admission.networks import public_ip
from testbed.apiserver.admission.pod_validation import PROTOCOLS, port_number
from testbed.apiserver.admission.shapes import (
    OBJECT_REFERENCE,
    boolean,
    integer,
    kind_shape,
    list_of,
    map_of,
    struct,
    text,
)
from testbed.apiserver.refusals import Cause, duplicate, immutable, required, too_long, unsupported

ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
MAX_ENDPOINTS = 1000
MAX_ADDRESSES = 100
MAX_HINTS = 8

_PORT = struct(name=text, port=integer, protocol=text, appProtocol=text)
_ADDRESS = struct(ip=text, hostname=text, nodeName=text, targetRef=OBJECT_REFERENCE)
_ZONES = list_of(struct(name=text))
ENDPOINTS_SHAPE = kind_shape(
    subsets=list_of(struct(addresses=list_of(_ADDRESS), notReadyAddresses=list_of(_ADDRESS), ports=list_of(_PORT)))
)
ENDPOINT_SLICE_SHAPE = kind_shape(
    addressType=text,
    endpoints=list_of(
        struct(
            addresses=list_of(text),
            conditions=struct(ready=boolean, serving=boolean, terminating=boolean),
            hostname=text,
            nodeName=text,
            zone=text,
            targetRef=OBJECT_REFERENCE,
            deprecatedTopology=map_of(text),
            hints=struct(forZones=_ZONES, forNodes=_ZONES),
        )
    ),
    ports=list_of(_PORT),
)


def default_endpoints(endpoints: Object) -> None:
    """Ports are TCP."""
    for subset in endpoints.get("subsets", []):
        _default_ports(subset.get("ports", []))


def default_endpoint_slice(endpoint_slice: Object) -> None:
    """Ports are TCP and have a name, if only the empty one; there is a list of endpoints."""
    endpoint_slice.setdefault("endpoints", [])
    endpoint_slice.setdefault("ports", [])
    _default_ports(endpoint_slice["ports"])
    for port in endpoint_slice["ports"]:
        port.setdefault("name", "")


def validate_endpoints(endpoints: Object) -> Iterator[Cause]:
    """Every subset has addresses, every address is one."""
    for number, subset in enumerate(endpoints.get("subsets", [])):
        field = f"subsets[{number}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            yield required(field, "must specify `addresses` or `notReadyAddresses`")
        for part in ("addresses", "notReadyAddresses"):
            for index, address in enumerate(subset.get(part, [])):
                yield from public_ip(address.get("ip", ""), f"{field}.{part}[{index}].ip")
        yield from _ports(subset.get("ports", []), f"{field}.ports", needs_number=True)


def validate_endpoint_slice(endpoint_slice: Object) -> Iterator[Cause]:
    """Mistakes of an EndpointSlice."""
    address_type = endpoint_slice.get("addressType", "")
    if not address_type:
        yield required("addressType")
    elif address_type not in ADDRESS_TYPES:
        yield unsupported("addressType", address_type, ADDRESS_TYPES)
    if len(endpoint_slice["endpoints"]) > MAX_ENDPOINTS:
        yield too_long("endpoints", MAX_ENDPOINTS, "items")
    for number, endpoint in enumerate(endpoint_slice["endpoints"]):
        yield from _endpoint(endpoint, address_type, f"endpoints[{number}]")
    yield from _ports(endpoint_slice["ports"], "ports", needs_number=False)


def validate_endpoint_slice_update(endpoint_slice: Object, old: Object) -> Iterator[Cause]:
    """The address type stays."""
    yield from validate_endpoint_slice(endpoint_slice)
    if endpoint_slice.get("addressType") != old.get("addressType"):
        yield immutable("addressType", endpoint_slice.get("addressType"))


def _endpoint(endpoint: dict[str, Any], address_type: str, field: str) -> Iterator[Cause]:
    addresses = endpoint.get("addresses", [])
    if not addresses:
        yield required(f"{field}.addresses", "must contain at least 1 address")
    elif len(addresses) > MAX_ADDRESSES:
        yield too_long(f"{field}.addresses", MAX_ADDRESSES, "items")
    if address_type == "IPv4":
        for index, address in enumerate(addresses):
            yield from public_ip(address, f"{field}.addresses[{index}]")
    if endpoint.get("hostname"):
        yield from names.checked(names.DNS_LABEL, endpoint["hostname"], f"{field}.hostname")
    for kind in ("forNodes", "forZones"):
        if len(endpoint.get("hints", {}).get(kind, [])) > MAX_HINTS:
            yield too_long(f"{field}.hints.{kind}", MAX_HINTS, "items")


def _ports(ports: list[dict[str, Any]], field: str, *, needs_number: bool) -> Iterator[Cause]:
    taken = set()
    for index, port in enumerate(ports):
        at, name = f"{field}[{index}]", port.get("name", "")
        if name:
            yield from names.checked(names.DNS_LABEL, name, f"{at}.name")
        if name in taken:
            yield duplicate(f"{at}.name", name)
        taken.add(name)
        if port["protocol"] not in PROTOCOLS:
            yield unsupported(f"{at}.protocol", port["protocol"], PROTOCOLS)
        if needs_number or "port" in port:
            yield from port_number(port.get("port", 0), f"{at}.port")


def _default_ports(ports: list[dict[str, Any]]) -> None:
    for port in ports:
        port.setdefault("protocol", "TCP")
