"""Which Service holds which address and which node port.

A claim is only a hint: it counts while the Service it names still holds the value. So nothing is ever released, and a
write that was taken back, a deletion or a restart needs no care.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable, Iterable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any, Generic, TypeVar

from testbed.api.kinds import SERVICE
from testbed.api.objects import Key, Object, key, spec
from testbed.apiserver.admission.services import HEADLESS, has_cluster_ip
from testbed.apiserver.refusals import Cause, forbidden_field, invalid
from testbed.apiserver.store import Store

NODE_PORTS = range(30000, 32768)
STATIC_BAND = 256
"""Addresses at the low end that are handed out last, so that people may choose them by hand (KEP-3070)."""
RANDOM_TRIES = 32

V = TypeVar("V", bound=Hashable)


class Claims(Generic[V]):
    """Values of Services, each held by at most one."""

    def __init__(self, store: Store, held_by: Callable[[Object], Iterable[V]]) -> None:
        self._store = store
        self._held_by = held_by
        self._claimed: dict[V, Key] = {}
        for record in store.list(SERVICE):
            self.claim(record.document)

    def claim(self, service: Object) -> None:
        """Note what the Service holds."""
        for value in self._held_by(service):
            self._claimed[value] = key(service)

    def is_taken(self, value: V, by_other_than: Key) -> bool:
        """Whether some other Service holds the value now."""
        holder = self._claimed.get(value)
        if holder is None or holder == by_other_than:
            return False
        record = self._store.get(SERVICE, holder)
        return record is not None and value in self._held_by(record.document)


class ServiceAddresses:
    """Allocates ClusterIPs from `cidr` and node ports, and refuses those that are taken or out of range.

    `reserved` addresses are given only to Services that ask for them by name.
    """

    def __init__(self, store: Store, cidr: IPv4Network, reserved: Iterable[IPv4Address]) -> None:
        self._cidr = cidr
        self._reserved = {str(address) for address in reserved}
        self._addresses = Claims(store, _addresses_of)
        self._ports = Claims(store, _node_ports_of)

    def assign(self, service: Object, old: Object | None) -> Iterator[Cause]:
        """Give the Service what it lacks, keeping what it had; the mistakes in what it asks for."""
        fields, before = service["spec"], spec(old or {})
        yield from self._assign_address(fields, before, key(service))
        yield from self._assign_ports(fields, before, key(service))

    def claim(self, service: Object) -> None:
        """The Service was found without mistakes, and is about to be stored."""
        self._addresses.claim(service)
        self._ports.claim(service)

    def _assign_address(self, fields: dict[str, Any], before: dict[str, Any], owner: Key) -> Iterator[Cause]:
        if fields["type"] == "ExternalName":
            if before.get("type", "ExternalName") != "ExternalName":
                for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                    fields.pop(name, None)
            return
        asked = fields.get("clusterIP") or before.get("clusterIP", "")
        if asked not in {"", HEADLESS, before.get("clusterIP")}:
            yield from self._mistakes(asked, owner)
        if not asked:
            asked = self._free_address(owner)
            if not asked:
                yield invalid("spec.clusterIPs", [], f"failed to allocate an address: the range {self._cidr} is full")
        fields["clusterIP"], fields["clusterIPs"] = asked, [asked]

    def _mistakes(self, asked: str, owner: Key) -> Iterator[Cause]:
        try:
            address = IPv4Address(asked)
        except AddressValueError:
            yield invalid("spec.clusterIPs[0]", asked, "must be a valid IP address, (e.g. 10.9.8.7)")
            return
        if address not in self._cidr or address in (self._cidr.network_address, self._cidr.broadcast_address):
            why = f"the provided IP ({asked}) is not in the valid range. The range of valid IPs is {self._cidr}"
            yield invalid("spec.clusterIPs", [asked], f"failed to allocate IP {asked}: {why}")
        elif self._addresses.is_taken(asked, owner):
            yield invalid(
                "spec.clusterIPs", [asked], f"failed to allocate IP {asked}: provided IP is already allocated"
            )

    def _free_address(self, owner: Key) -> str:
        size = self._cidr.num_addresses
        low = min(max(16, size // 16), STATIC_BAND, size - 2)
        for _ in range(RANDOM_TRIES):
            address = str(self._cidr[low + secrets.randbelow(size - 1 - low)])
            if self._is_free(address, owner):
                return address
        in_order = map(str, (self._cidr[index] for band in (range(low, size - 1), range(1, low)) for index in band))
        return next((address for address in in_order if self._is_free(address, owner)), "")

    def _is_free(self, address: str, owner: Key) -> bool:
        return address not in self._reserved and not self._addresses.is_taken(address, owner)

    def _assign_ports(self, fields: dict[str, Any], before: dict[str, Any], owner: Key) -> Iterator[Cause]:
        if not _has_node_ports(fields):
            yield from _without_node_ports(fields, before)
            return
        kept = {_served(port): port.get("nodePort") for port in before.get("ports", [])}
        chosen: set[tuple[int, str]] = set()
        for index, port in enumerate(fields.get("ports", [])):
            number = port.get("nodePort") or kept.get(_served(port)) or self._free_port(port["protocol"], owner, chosen)
            which = (number, port["protocol"])
            if number not in NODE_PORTS:
                detail = f"provided port is not in the valid range. The range of valid ports is {_shown(NODE_PORTS)}"
                yield invalid(f"spec.ports[{index}].nodePort", number, detail)
            elif which in chosen or self._ports.is_taken(which, owner):
                yield invalid(f"spec.ports[{index}].nodePort", number, "provided port is already allocated")
            chosen.add(which)
            port["nodePort"] = number

    def _free_port(self, protocol: str, owner: Key, chosen: set[tuple[int, str]]) -> int:
        start = secrets.randbelow(len(NODE_PORTS))
        for offset in range(len(NODE_PORTS)):
            number = NODE_PORTS[(start + offset) % len(NODE_PORTS)]
            if (number, protocol) not in chosen and not self._ports.is_taken((number, protocol), owner):
                return number
        return 0


def _addresses_of(service: Object) -> list[str]:
    fields = spec(service)
    return [fields["clusterIP"]] if has_cluster_ip(fields) and fields.get("clusterIP") else []


def _node_ports_of(service: Object) -> list[tuple[int, str]]:
    return [(port["nodePort"], port["protocol"]) for port in spec(service).get("ports", []) if port.get("nodePort")]


def _has_node_ports(fields: dict[str, Any]) -> bool:
    if fields["type"] == "LoadBalancer":
        return bool(fields.get("allocateLoadBalancerNodePorts", True))
    return bool(fields["type"] == "NodePort")


def _without_node_ports(fields: dict[str, Any], before: dict[str, Any]) -> Iterator[Cause]:
    """Ports left over from a former type are given up; asking for one is a mistake."""
    former = {port.get("nodePort") for port in before.get("ports", [])}
    for index, port in enumerate(fields.get("ports", [])):
        number = port.pop("nodePort", None)
        if number and number not in former:
            detail = f"may not be used when `type` is '{fields['type']}'"
            yield forbidden_field(f"spec.ports[{index}].nodePort", detail)


def _served(port: dict[str, Any]) -> tuple[Any, Any]:
    return port.get("port"), port.get("protocol")


def _shown(numbers: range) -> str:
    return f"{numbers.start}-{numbers.stop - 1}"
