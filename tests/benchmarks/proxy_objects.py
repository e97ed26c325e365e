"""Services by the thousand: as the values that a proxy mode is given, and as the API objects that become them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network

from testbed.api.objects import Key, Object
from testbed.api.wellknown import SERVICE_NAME_LABEL
from testbed.proxy.virtualport import Endpoint, Here, Ports, VirtualPort

TARGET = 8080
PORT = 80
SLICE = 100
"""Endpoints in a slice, at the most."""
HERE = Here(
    node="a",
    address=IPv4Address("198.18.0.10"),
    pod_cidr=IPv4Network("10.244.0.0/24"),
    cluster_cidr=IPv4Network("10.244.0.0/16"),
    service_cidr=IPv4Network("10.96.0.0/16"),
)
_FIRST_ADDRESS = IPv4Address("10.96.1.0")
_FIRST_ENDPOINT = IPv4Address("10.244.1.0")


def cluster_ip(number: int) -> IPv4Address:
    """Of a Service, from 1 up to 65,000."""
    return _FIRST_ADDRESS + number


def ports(count: int) -> Ports:
    """So many Services with two endpoints each."""
    return {
        Key("default", f"s{number}"): (virtual_port(number, addresses(number, 2)),) for number in range(1, count + 1)
    }


def addresses(number: int, count: int) -> list[IPv4Address]:
    """Where nobody is: endpoints of a Service that nobody asks."""
    return [_FIRST_ENDPOINT + (number * count + at) % 60_000 for at in range(count)]


def virtual_port(number: int, endpoints: Sequence[IPv4Address]) -> VirtualPort:
    """A Service's port."""
    found = tuple(Endpoint(each, TARGET) for each in endpoints)
    return VirtualPort(
        service=Key("default", f"s{number}"),
        name="",
        protocol="tcp",
        cluster_ip=cluster_ip(number),
        port=PORT,
        cluster=found,
        has_endpoints=bool(found),
        serving=frozenset(found),
    )


def service(number: int) -> Object:
    """The Service; without a selector, so that no controller sees to its endpoints."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"s{number}", "namespace": "default"},
        "spec": {"clusterIP": str(cluster_ip(number)), "ports": [{"port": PORT, "targetPort": TARGET}]},
    }


def slices(number: int, endpoints: Sequence[IPv4Address]) -> Iterator[Object]:
    """Its EndpointSlices."""
    for at in range(0, len(endpoints), SLICE):
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"s{number}-{at}",
                "namespace": "default",
                "labels": {SERVICE_NAME_LABEL: f"s{number}"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "", "port": TARGET, "protocol": "TCP"}],
            "endpoints": ready(endpoints[at : at + SLICE]),
        }


def ready(endpoints: Sequence[IPv4Address]) -> list[Object]:
    """As a slice lists them."""
    return [{"addresses": [str(each)], "conditions": {"ready": True}} for each in endpoints]
