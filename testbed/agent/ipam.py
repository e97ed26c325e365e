"""Which address a pod gets."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network

from testbed.errors import TestbedError

FIRST = 2
"""The network's own address and the bridge's come before."""


class AddressesExhausted(TestbedError):
    """A node's pod CIDR has no address left."""


def choose_address(pod_cidr: IPv4Network, held: Collection[IPv4Address], last: IPv4Address | None) -> IPv4Address:
    """The next free address after `last`, from .2 up to the one before broadcast, and round again.

    Going round keeps an address out of use for as long as possible after its pod has gone: connections and caches
    that still know it then meet nobody, instead of somebody else. Raises AddressesExhausted.
    """
    count = pod_cidr.num_addresses - FIRST - 1
    start = int(last) - int(pod_cidr.network_address) - FIRST + 1 if last and last in pod_cidr else 0
    for offset in range(count):
        address = pod_cidr[FIRST + (start + offset) % count]
        if address not in held:
            return address
    raise AddressesExhausted(f"all {count} pod addresses of {pod_cidr} are in use; give the topology a larger podCIDR")


class Addresses:
    """Who holds which address on one host."""

    def __init__(self) -> None:
        self._held: dict[str, IPv4Address] = {}
        self._last: dict[IPv4Network, IPv4Address] = {}

    def adopt(self, pod_uid: str, address: IPv4Address) -> None:
        """The pod has this address already."""
        self._held[pod_uid] = address

    def take(self, pod_uid: str, pod_cidr: IPv4Network, preferred: IPv4Address | None = None) -> IPv4Address:
        """The pod's address: the one it holds, the preferred one if that is free, or a new one. AddressesExhausted."""
        held = self._held.get(pod_uid)
        if held is None or held not in pod_cidr:
            taken = {address for holder, address in self._held.items() if holder != pod_uid}
            if preferred is None or preferred in taken or preferred not in pod_cidr:
                preferred = self._last[pod_cidr] = choose_address(pod_cidr, taken, self._last.get(pod_cidr))
            held = self._held[pod_uid] = preferred
        return held

    def release(self, pod_uid: str) -> None:
        """The pod is gone, and its link with it."""
        self._held.pop(pod_uid, None)
