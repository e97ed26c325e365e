"""The load balancers of the cluster's "cloud": the switch hands what comes for their addresses to the nodes.

    client ── outside ═ switch: 192.0.2.7 nexthop via 198.18.0.10 nexthop via 198.18.0.11 ═ underlay ── node a
                                192.0.2.0/24 blackhole                                             └── node b

The address is on no device. A packet reaches a node with the address it was sent to, as from a router with ECMP; the
node's service rules do the rest, and answers go back through the switch as they come. Which node takes a flow follows
from its addresses and ports alone, so a node that comes or goes moves some flows of others: as with every balancer
that keeps no state. What no node takes is dropped: a cloud that has nobody to send to is silent, and clients run into
their timeout. Nodes and pods never come here: their own node's rules know the address.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network

from testbed.api.kinds import ENDPOINT_SLICE, SERVICE
from testbed.api.objects import Key, Object, is_deleting, is_ready, labels, name, spec, status
from testbed.api.wellknown import EXCLUDE_BALANCERS_LABEL, ROLE_LABEL, SERVICE_NAME_LABEL
from testbed.client.informer import Informer
from testbed.client.protocol import Client
from testbed.errors import KernelError
from testbed.kernel.links import Hop

log = logging.getLogger(__name__)

RESYNC_S = 10.0
"""How often the routes are looked at although nothing has changed: somebody may have deleted one."""

Routes = Mapping[IPv4Network, Hop]
Balance = Callable[[IPv4Network | None, Routes], None]
"""`Wiring.balance`: the network of all load balancers, and the routes of those that have somebody to send to."""


def backends(nodes: Iterable[Object]) -> dict[str, IPv4Address]:
    """The nodes that load balancers send to, with their addresses: workers that are Ready and not excluded by label."""
    found = {}
    for node in nodes:
        is_worker = labels(node).get(ROLE_LABEL) == "worker" and EXCLUDE_BALANCERS_LABEL not in labels(node)
        addresses = [a["address"] for a in status(node).get("addresses") or [] if a.get("type") == "InternalIP"]
        if is_worker and is_ready(node) and not is_deleting(node) and addresses:
            found[name(node)] = IPv4Address(addresses[0])
    return found


def is_local(service: Object) -> bool:
    """Whether only nodes with endpoints of their own may take what comes from outside."""
    return spec(service).get("externalTrafficPolicy") == "Local"


def serving_nodes(slices: Iterable[Object]) -> set[str]:
    """The nodes with an endpoint that is ready, or that serves while it terminates (KEP-1669).

    A node of which only the latter are left is kept: without it, the flows that it has would go to others and break.
    """
    found = set()
    for endpoint in (endpoint for slice_ in slices for endpoint in slice_.get("endpoints") or ()):
        told = endpoint.get("conditions") or {}
        if told.get("ready") is not False or (told.get("serving") and told.get("terminating")):
            found.add(endpoint.get("nodeName", ""))
    return found


def routes_for(
    cidr: IPv4Network,
    services: Iterable[tuple[Object, Iterable[Object]]],
    nodes: Mapping[str, IPv4Address],
) -> Routes:
    """A route over all of a Service's nodes for each of its addresses within `cidr`. Each Service comes with its
    slices, which are looked at for traffic policy Local alone."""
    routes: dict[IPv4Network, Hop] = {}
    for service, slices in services:
        chosen = serving_nodes(slices) & nodes.keys() if is_local(service) else nodes.keys()
        gateways = sorted(nodes[node] for node in chosen)
        for address in _addresses(service):
            if gateways and address in cidr:
                routes[IPv4Network(address)] = Hop(via=gateways[0], others=tuple(gateways[1:]))
    return routes


class LoadBalancers:
    """Keeps the switch's routes true. `nodes` is an informer of all Nodes, which somebody else runs.

    Only Services of type LoadBalancer are followed, and slices only of those with traffic policy Local, by a watch
    each: ten thousand others cost nothing here.
    """

    def __init__(self, client: Client, nodes: Informer, balance: Balance) -> None:
        self._client = client
        self._nodes = nodes
        self._services = Informer(client, SERVICE, field_selector="spec.type=LoadBalancer")
        self._slices: dict[Key, tuple[Informer, asyncio.Task[None]]] = {}
        self._balance = balance
        self._cidr: IPv4Network | None = None
        self._changed, self._told = asyncio.Event(), asyncio.Event()
        for informer in (nodes, self._services):
            informer.on_change(lambda _: self._changed.set())

    def follow(self, cidr: IPv4Network | None) -> None:
        """The network that load balancers have their addresses from, by the cluster's newest spec."""
        if cidr != self._cidr:
            self._cidr = cidr
            self._changed.set()
        self._told.set()

    async def run(self) -> None:
        """Until cancelled. Nothing is routed, and no route is taken away, before everything has been listed and
        `follow` has told the network: an agent that starts again must not cut off what its predecessor routed."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._services.run())
            await asyncio.gather(self._services.synced.wait(), self._nodes.synced.wait(), self._told.wait())
            while True:
                self._changed.clear()
                self._follow_slices(group)
                await asyncio.gather(*(informer.synced.wait() for informer, _ in self._slices.values()))
                await self._apply()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), RESYNC_S)

    async def _apply(self) -> None:
        services = [(service, self._slices_of(key)) for key, service in self._services.items.items()]
        routes = routes_for(self._cidr, services, backends(self._nodes.items.values())) if self._cidr else {}
        try:
            await asyncio.to_thread(self._balance, self._cidr, routes)
        except KernelError as error:
            log.warning("load balancers: %s", error)  # the switch is being wired anew: again at the next resync

    def _slices_of(self, service: Key) -> Iterable[Object]:
        return self._slices[service][0].items.values() if service in self._slices else ()

    def _follow_slices(self, group: asyncio.TaskGroup) -> None:
        wanted = {key for key, service in self._services.items.items() if is_local(service)}
        for gone in self._slices.keys() - wanted:
            self._slices.pop(gone)[1].cancel()
        for key in wanted - self._slices.keys():
            selector = f"{SERVICE_NAME_LABEL}={key.name}"
            informer = Informer(self._client, ENDPOINT_SLICE, key.namespace, label_selector=selector)
            informer.on_change(lambda _: self._changed.set())
            self._slices[key] = (informer, group.create_task(informer.run()))


def _addresses(service: Object) -> list[IPv4Address]:
    ingress = (status(service).get("loadBalancer") or {}).get("ingress") or []
    return [IPv4Address(entry["ip"]) for entry in ingress if entry.get("ip") and ":" not in entry["ip"]]
