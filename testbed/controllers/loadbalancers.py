"""Load balancers: a Service of that type gets an address of the topology's `loadBalancerCIDR`.

What is given is in `status.loadBalancer` and nowhere else, so it survives every restart, and goes back with the
Service or its type: nothing outside the API has to be cleaned up first, and no finalizer holds the Service. Hosts'
agents read the address there and route it to nodes (`agent.loadbalancers`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from testbed.api.kinds import SERVICE
from testbed.api.objects import Key, Object, is_deleting, key, name, namespace, spec, status
from testbed.api.wellknown import CLUSTER_CONFIG_MAP, SYSTEM_NAMESPACE
from testbed.controllers.cluster import Cluster
from testbed.controllers.events import Recorder
from testbed.controllers.loop import Loop
from testbed.topology.spec import ClusterSpec

CONFIG = Key(SYSTEM_NAMESPACE, CLUSTER_CONFIG_MAP)


class LoadBalancers:
    """The controller. It serves Services that name no `loadBalancerClass`; others are somebody else's."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._client = cluster, cluster.client
        self._recorder = Recorder(cluster.client, "service-controller")
        self._cidr: IPv4Network | None = None
        self._next = 0
        """Where in the network to look for a free address: behind the one given last."""
        self._told: dict[Key, str] = {}
        """Why a Service waits, as its last Event says."""
        self._holders = cluster.services.index(addresses_of)
        # One at a time: what is given out must be in the index before anybody else looks for a free address.
        self.loop = Loop("load-balancer", self.reconcile, workers=1)
        cluster.services.observe(self._service_changed)
        cluster.config_maps.observe(self._settings_changed)

    async def reconcile(self, which: Key) -> None:
        """Have the Service hold the address it should have, or tell why it has none."""
        service = self._cluster.services.items.get(which)
        if service is None or is_deleting(service) or not is_ours(service):
            return
        address, problem = self._choice(service)
        if addresses_of(service) != ([address] if address else []):
            await self._give(service, address)
        if problem:
            await self._complain(service, problem)
        else:
            self._told.pop(which, None)

    def _choice(self, service: Object) -> tuple[str, str]:
        """The address that the Service should have, or none and why; it keeps one for as long as that will do."""
        if self._cidr is None:
            return "", "the cluster has no loadBalancerCIDR, from which load balancers get their addresses"
        if wanted := spec(service).get("loadBalancerIP", ""):
            problem = self._problem(wanted, service)
            return "" if problem else wanted, problem
        for address in addresses_of(service):
            if not self._problem(address, service):
                return address, ""
        address = self._free(self._cidr)
        return address, "" if address else f"no address of {self._cidr} is free"

    def _problem(self, address: str, service: Object) -> str:
        """Why the Service cannot have this address, or an empty string."""
        try:
            is_inside = self._cidr is not None and IPv4Address(address) in self._cidr
        except AddressValueError:
            return f"{address} is not an IPv4 address"
        if not is_inside:
            return f"{address} is not in {self._cidr}"
        rivals = sorted(key(other) for other in self._holders[address] if key(other) != key(service))
        # Of two that came to hold one address by somebody else's hand, the first by name keeps it.
        if rivals and (address not in addresses_of(service) or rivals[0] < key(service)):
            return f"{address} is the address of {rivals[0]}"
        return ""

    def _free(self, cidr: IPv4Network) -> str:
        numbers = range(cidr.num_addresses) if cidr.prefixlen > 30 else range(1, cidr.num_addresses - 1)
        for offset in range(len(numbers)):
            position = (self._next + offset) % len(numbers)
            if not self._holders[address := str(cidr[numbers[position]])]:
                self._next = position + 1
                return address
        return ""

    async def _give(self, service: Object, address: str) -> None:
        ingress = [{"ip": address, "ipMode": "VIP"}] if address else None
        patch = {"metadata": {"uid": service["metadata"]["uid"]}, "status": {"loadBalancer": {"ingress": ingress}}}
        written = await self._client.patch(SERVICE, name(service), patch, namespace(service), subresource="status")
        self._cluster.services.learn(written)
        if address:
            await self._recorder.normal(written, "EnsuredLoadBalancer", f"Ensured load balancer at {address}")

    async def _complain(self, service: Object, problem: str) -> None:
        if self._told.get(key(service)) != problem:
            self._told[key(service)] = problem
            text = f"Error syncing load balancer: {problem}"
            await self._recorder.warning(service, "SyncLoadBalancerFailed", text)

    def _service_changed(self, which: Key, old: Object | None, new: Object | None) -> None:
        if new is not None and is_ours(new):
            self.loop.enqueue(which)
        else:
            self._told.pop(which, None)
        if old is not None and set(addresses_of(old)).difference(addresses_of(new or {})):
            self._enqueue(self._told)  # what it held may be what another one waits for

    def _settings_changed(self, which: Key, _: Object | None, settings: Object | None) -> None:
        text = ((settings or {}).get("data") or {}).get("spec.json")
        if which == CONFIG and text:
            self._cidr = ClusterSpec.from_json(json.loads(text)).services.load_balancer_cidr
            self._enqueue(key for key, service in self._cluster.services.items.items() if is_ours(service))

    def _enqueue(self, services: Iterable[Key]) -> None:
        for which in list(services):
            self.loop.enqueue(which)


def is_ours(service: Object) -> bool:
    """Whether the Service asks for a load balancer, and for no other's than ours."""
    return spec(service).get("type") == "LoadBalancer" and not spec(service).get("loadBalancerClass")


def addresses_of(service: Object) -> list[str]:
    """status.loadBalancer.ingress[].ip"""
    return list(_ips(service))


def _ips(service: Object) -> Iterator[str]:
    for ingress in (status(service).get("loadBalancer") or {}).get("ingress") or ():
        if address := ingress.get("ip"):
            yield address
