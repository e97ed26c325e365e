"""The way of a Service: its addresses, its endpoints, where load balancers send, and what every node does. One reader,
the rest is pure."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from testbed.agent.loadbalancers import backends, routes_for
from testbed.api.kinds import ENDPOINT_SLICE, NODE, SERVICE
from testbed.api.objects import Key, Object, labels, name, namespace, spec, status
from testbed.api.wellknown import HEADLESS_LABEL, SERVICE_NAME_LABEL, SERVICE_PROXY_NAME_LABEL
from testbed.client.http import HttpClient
from testbed.errors import BadInput, NotFound
from testbed.runtime.nodedaemons import Served, served, workers

Row = Mapping[str, Any]
EVERYWHERE = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True)
class ServicePath:
    """All of it, in values that print as they are."""

    namespace: str
    name: str
    type: str
    selector: str
    """`app=web`; empty: its endpoints are written by hand."""
    remark: str
    """Why nodes have nothing to do with it; empty where they serve it."""
    facts: Mapping[str, str]
    """Addresses, policies, affinity."""
    ports: Sequence[Row]
    endpoints: Sequence[Row]
    switch: Mapping[str, Sequence[str]]
    """Where the switch sends what comes for each address of its load balancer: nodes."""
    nodes: Sequence[Served]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


async def service_path(client: HttpClient, which: Key, node: str = "") -> ServicePath:
    """Ask the API and every node's daemon, or only that node's. BadInput where there is no such Service or node."""
    try:
        service = await client.get(SERVICE, which.name, which.namespace)
    except NotFound:
        raise BadInput(await _no_such_service(client, which)) from None
    asked = await workers(client, node)
    selector = f"{SERVICE_NAME_LABEL}={which.name}"
    slices, nodes, answers = await asyncio.gather(
        client.list(ENDPOINT_SLICE, which.namespace, label_selector=selector),
        client.list(NODE),
        asyncio.gather(*(served(client, each, which) for each in asked)),
    )
    return described(service, slices.items, nodes.items, answers)


def described(
    service: Object, slices: Sequence[Object], nodes: Iterable[Object], answers: Sequence[Served]
) -> ServicePath:
    """The way of this Service, by these objects and what the daemons said."""
    fields = spec(service)
    return ServicePath(
        namespace=namespace(service),
        name=name(service),
        type=fields.get("type", "ClusterIP"),
        selector=", ".join(f"{key}={value}" for key, value in (fields.get("selector") or {}).items()),
        remark=_remark(service),
        facts={what: value for what, value in _facts(service) if value},
        ports=[_port(port) for port in fields.get("ports") or ()],
        endpoints=list(_endpoints(slices)),
        switch=_switch(service, slices, nodes),
        nodes=answers,
    )


def _remark(service: Object) -> str:
    fields, marks = spec(service), labels(service)
    if fields.get("type") == "ExternalName":
        return f"DNS answers with a CNAME, {fields.get('externalName')}; no node has anything to do with it"
    if fields.get("clusterIP") == "None":
        return "it is headless: DNS answers with the addresses of its endpoints, and no node has anything to do with it"
    if SERVICE_PROXY_NAME_LABEL in marks:
        return f"its label {SERVICE_PROXY_NAME_LABEL} leaves it to another proxy, {marks[SERVICE_PROXY_NAME_LABEL]}"
    if HEADLESS_LABEL in marks:
        return f"its label {HEADLESS_LABEL} tells proxies to leave it alone"
    return ""


def _facts(service: Object) -> Iterator[tuple[str, str]]:
    fields = spec(service)
    yield "ClusterIP", fields.get("clusterIP", "")
    yield "external IPs", ", ".join(fields.get("externalIPs") or ())
    if fields.get("type") == "LoadBalancer":
        yield "load balancer", ", ".join(_balancers(service)) or "has no address yet"
        yield "load balancer lets in", ", ".join(fields.get("loadBalancerSourceRanges") or ()) or "everybody"
    if fields.get("sessionAffinity") == "ClientIP":
        seconds = ((fields.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds", 10800)
        yield "affinity", f"a client keeps its endpoint for {seconds} s after its last connection"
    for where in ("internal", "external"):
        if fields.get(f"{where}TrafficPolicy") == "Local":
            yield f"{where} traffic policy", "Local: only endpoints of the node that a connection comes to"
    yield "distribution", fields.get("trafficDistribution", "")
    yield "health check node port", str(fields.get("healthCheckNodePort") or "")
    if fields.get("publishNotReadyAddresses"):
        yield "endpoints", "count as ready whether they are or not (publishNotReadyAddresses)"


def _port(port: Mapping[str, Any]) -> Row:
    return {
        "port": f"{port['port']}/{port.get('protocol', 'TCP')}",
        "name": port.get("name", ""),
        "target port": str(port.get("targetPort", port["port"])),
        "node port": str(port.get("nodePort") or ""),
    }


def _endpoints(slices: Iterable[Object]) -> Iterator[Row]:
    """A row to each address, in the order of addresses; ports by their names where there are several."""
    rows = []
    for slice_ in slices:
        ports = slice_.get("ports") or []
        shown = ", ".join(
            f"{port.get('name')} {port['port']}" if len(ports) > 1 else str(port["port"]) for port in ports
        )
        for endpoint in slice_.get("endpoints") or ():
            target = endpoint.get("targetRef") or {}
            common = {
                "port": shown,
                "pod": target.get("name", "") if target.get("kind") == "Pod" else "",
                "node": endpoint.get("nodeName") or "",
                "zone": endpoint.get("zone") or "",
                "state": _state(endpoint.get("conditions") or {}),
            }
            rows += [{"address": address, **common} for address in endpoint.get("addresses") or ()]
    yield from sorted(rows, key=lambda row: (IPv4Address(row["address"]), row["port"]))


def _state(conditions: Mapping[str, Any]) -> str:
    if conditions.get("ready") is not False:
        return "ready"
    if conditions.get("terminating"):
        return "terminating, still serving" if conditions.get("serving") else "terminating"
    return "not ready"


def _switch(service: Object, slices: Sequence[Object], nodes: Iterable[Object]) -> dict[str, list[str]]:
    """By the very functions with which the host's agent makes the routes."""
    taking = backends(nodes)
    names = {address: node for node, address in taking.items()}
    hops = routes_for(EVERYWHERE, [(service, slices)], taking)
    routes = {str(network.network_address): [hop.via, *hop.others] for network, hop in hops.items()}
    return {
        address: [f"{names[via]} ({via})" for via in routes.get(address, ()) if via in names]
        for address in _balancers(service)
    }


def _balancers(service: Object) -> list[str]:
    ingress = (status(service).get("loadBalancer") or {}).get("ingress") or ()
    return [entry["ip"] for entry in ingress if entry.get("ip")]


async def _no_such_service(client: HttpClient, which: Key) -> str:
    known = sorted((await client.list(SERVICE)).items, key=lambda service: (namespace(service), name(service)))
    same = [f"{namespace(each)}/{name(each)}" for each in known if name(each) == which.name]
    here = [name(each) for each in known if namespace(each) == which.namespace]
    likely = same or difflib.get_close_matches(which.name, here, n=3) or here[:5]
    hint = f"; there is {', '.join(likely)}" if likely else "; there is none at all"
    return f"there is no Service {which.name} in namespace {which.namespace}{hint}"
