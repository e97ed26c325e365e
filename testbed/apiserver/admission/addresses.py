"""What Services are given: ClusterIPs, node ports, and the ports of health checks.

As kube-apiserver does it (`pkg/registry/core/service/storage/alloc.go`), but that all mistakes are told at once. A node
port belongs to one Service, whatever the protocol; within the Service, ports of one number that differ in their
protocol share theirs.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from testbed.api.kinds import SERVICE
from testbed.api.objects import Key, Object, key, spec
from testbed.apiserver.admission.held import Held, values_to_try
from testbed.apiserver.admission.networks import parsed_ip
from testbed.apiserver.admission.service_types import (
    HEADLESS,
    allocates_node_ports,
    has_cluster_ip,
    has_node_ports,
    needs_health_check,
    node_ports_of,
)
from testbed.apiserver.refusals import Cause, invalid
from testbed.apiserver.store import Store
from testbed.topology.spec import ServicesSpec

RANDOM_TRIES = 32
"""Numbers that are tried before the range is searched; below nine tenths full, one of them is nearly always free."""

IsFree = Callable[[int], bool]


class ServiceAddresses:
    """Gives Services what they lack, and refuses what they may not have.

    The addresses of the cluster itself are given only to Services that ask for them by name.
    """

    def __init__(self, store: Store, services: ServicesSpec) -> None:
        self._cidr: IPv4Network = services.cidr
        self._reserved = {services.kubernetes, services.dns}
        first, last = services.node_ports
        self._node_ports = range(first, last + 1)
        self._addresses = Held(store, SERVICE, _addresses_of)
        self._ports = Held(store, SERVICE, _ports_of)

    def assign(self, service: Object, old: Object | None) -> Iterator[Cause]:
        """Complete the Service; the mistakes in what it asks for. What it had before may stay, come what may."""
        fields, before = service["spec"], spec(old or {})
        yield from self._assign_address(fields, before, key(service))
        if has_node_ports(fields):
            yield from self._assign_ports(fields, before, key(service))
        if needs_health_check(fields):
            yield from self._assign_health_check(fields, before, key(service))

    def _assign_address(self, fields: dict[str, Any], before: dict[str, Any], owner: Key) -> Iterator[Cause]:
        asked = fields.get("clusterIP", "")
        if not has_cluster_ip(fields) or (asked and asked == before.get("clusterIP")):
            return
        if asked:
            yield from self._mistakes(asked, owner)
        elif not fields.get("clusterIPs"):
            address = self._free_address(owner)
            if address is None:
                yield invalid("spec.clusterIPs", [], f"failed to allocate an address: the range {self._cidr} is full")
            else:
                fields["clusterIP"], fields["clusterIPs"] = str(address), [str(address)]

    def _mistakes(self, asked: str, owner: Key) -> Iterator[Cause]:
        """Of an address; one that is none is found by validation."""
        address = parsed_ip(asked)
        if address is None:
            return
        if address not in self._cidr or address in (self._cidr.network_address, self._cidr.broadcast_address):
            why = f"the provided IP ({asked}) is not in the valid range. The range of valid IPs is {self._cidr}"
            yield invalid("spec.clusterIPs", [asked], f"failed to allocate IP {asked}: {why}")
        elif self._addresses.is_taken(asked, owner):
            yield invalid(
                "spec.clusterIPs", [asked], f"failed to allocate IP {asked}: provided IP is already allocated"
            )

    def _free_address(self, owner: Key) -> IPv4Address | None:
        count = self._cidr.num_addresses - 2
        static = min(max(16, self._cidr.num_addresses // 16), 256) if count > 16 else 0

        def is_free(number: int) -> bool:
            address = self._cidr[1 + number]
            return address not in self._reserved and not self._addresses.is_taken(str(address), owner)

        found = _first_free(count, static, is_free)
        return None if found is None else self._cidr[1 + found]

    def _assign_ports(self, fields: dict[str, Any], before: dict[str, Any], owner: Key) -> Iterator[Cause]:
        had, chosen = set(node_ports_of(before)), {*node_ports_of(fields), fields.get("healthCheckNodePort", 0)}
        shared = {port.get("port"): port["nodePort"] for port in fields.get("ports", []) if port.get("nodePort")}
        for index, port in enumerate(fields.get("ports", [])):
            field = f"spec.ports[{index}].nodePort"
            if number := port.get("nodePort"):
                if number not in had:
                    yield from self._port_mistakes(number, field, owner)
            elif allocates_node_ports(fields):
                number = shared.get(port.get("port")) or self._free_port(owner, chosen)
                if not number:
                    yield invalid(field, 0, "failed to allocate a nodePort: range is full")
                    return
                port["nodePort"] = shared[port.get("port")] = number
                chosen.add(number)

    def _assign_health_check(self, fields: dict[str, Any], before: dict[str, Any], owner: Key) -> Iterator[Cause]:
        field, number = "spec.healthCheckNodePort", fields.get("healthCheckNodePort")
        if not number:
            fields["healthCheckNodePort"] = self._free_port(owner, set(node_ports_of(fields)))
        elif number in node_ports_of(fields):
            yield invalid(field, number, "provided port is already allocated")
        elif number != before.get("healthCheckNodePort"):
            yield from self._port_mistakes(number, field, owner)

    def _port_mistakes(self, number: int, field: str, owner: Key) -> Iterator[Cause]:
        if number not in self._node_ports:
            shown = f"{self._node_ports.start}-{self._node_ports.stop - 1}"
            detail = f"provided port is not in the valid range. The range of valid ports is {shown}"
            yield invalid(field, number, detail)
        elif self._ports.is_taken(number, owner):
            yield invalid(field, number, "provided port is already allocated")

    def _free_port(self, owner: Key, chosen: set[int]) -> int:
        """0 where there is none."""
        numbers = self._node_ports
        static = min(max(16, len(numbers) // 32), 128) if len(numbers) > 16 else 0

        def is_free(offset: int) -> bool:
            return numbers[offset] not in chosen and not self._ports.is_taken(numbers[offset], owner)

        found = _first_free(len(numbers), static, is_free)
        return 0 if found is None else numbers[found]


def _first_free(count: int, static: int, is_free: IsFree) -> int | None:
    """A free number below `count`, out of the first `static` only where no other is left."""
    for _ in range(RANDOM_TRIES):
        number = static + secrets.randbelow(count - static)
        if is_free(number):
            return number
    return next(filter(is_free, values_to_try(count, static, secrets.randbelow(count))), None)


def _addresses_of(service: Object) -> Iterable[str]:
    fields = spec(service)
    return [fields["clusterIP"]] if has_cluster_ip(fields) and fields.get("clusterIP") != HEADLESS else []


def _ports_of(service: Object) -> Iterable[int]:
    fields = spec(service)
    checks = [fields["healthCheckNodePort"]] if fields.get("healthCheckNodePort") else []
    return {*node_ports_of(fields), *checks} if has_node_ports(fields) else checks
