"""Which node the switch hands a load balancer's traffic to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from testbed.agent.loadbalancers import LoadBalancers, Routes, backends, routes_for, serving_nodes
from testbed.api.kinds import ENDPOINT_SLICE, NODE, SERVICE
from testbed.api.objects import Object
from testbed.api.wellknown import EXCLUDE_BALANCERS_LABEL, ROLE_LABEL, SERVICE_NAME_LABEL
from testbed.client.fake import FakeClient
from testbed.client.informer import Informer
from testbed.kernel.links import Hop
from testbed.waiting import wait_until_async

CIDR = IPv4Network("192.0.2.0/24")
A, B, C = (IPv4Address(f"198.18.0.{number}") for number in (10, 11, 12))
VIP = IPv4Network("192.0.2.7/32")


def node(name: str, address: IPv4Address, label: str = "", *, ready: bool = True) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {ROLE_LABEL: "worker", **({label: ""} if label else {})}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": str(address)}],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def service(name: str = "web", address: str = "192.0.2.7", **fields: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "clusterIP": "10.96.0.7", **fields},
        "status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}] if address else []}},
    }


def slice_of(name: str, *endpoints: tuple[str, Mapping[str, bool]]) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "namespace": "default", "labels": {SERVICE_NAME_LABEL: name}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.244.0.2"], "nodeName": at, "conditions": dict(told)} for at, told in endpoints
        ],
        "ports": [{"port": 8080}],
    }


READY = {"ready": True, "serving": True, "terminating": False}
UNREADY = {"ready": False, "serving": False, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}


def test_every_ready_worker_takes_a_share() -> None:
    routes = routes_for(CIDR, [(service(), ())], {"b": B, "a": A, "c": C})
    assert routes == {VIP: Hop(via=A, others=(B, C))}


def test_a_service_without_an_address_or_with_one_of_another_network_has_no_route() -> None:
    services = [(service(address=""), ()), (service(address="198.18.0.1"), ())]
    assert routes_for(CIDR, services, {"a": A}) == {}


def test_nobody_to_send_to_is_no_route() -> None:
    local = service(externalTrafficPolicy="Local")
    assert routes_for(CIDR, [(service(), ())], {}) == {}
    assert routes_for(CIDR, [(local, [slice_of("web", ("a", UNREADY))])], {"a": A}) == {}


def test_policy_local_sends_to_nodes_with_endpoints_alone() -> None:
    slices = [slice_of("web", ("a", READY), ("b", UNREADY)), slice_of("web", ("c", LEAVING), ("gone", READY))]
    local = service(externalTrafficPolicy="Local")
    assert routes_for(CIDR, [(local, slices)], {"a": A, "b": B, "c": C}) == {VIP: Hop(via=A, others=(C,))}


def test_an_endpoint_that_says_nothing_of_itself_counts_as_ready() -> None:
    assert serving_nodes([slice_of("web", ("a", {}))]) == {"a"}


def test_only_ready_workers_that_nobody_excludes_are_sent_to() -> None:
    external = {**node("d", C), "metadata": {"name": "d", "labels": {ROLE_LABEL: "external"}}}
    leaving = node("e", C)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    nodes = [node("a", A), node("b", B, ready=False), node("c", C, EXCLUDE_BALANCERS_LABEL), external, leaving]
    assert backends(nodes) == {"a": A}


class Switch:
    """Remembers what it was told last."""

    def __init__(self) -> None:
        self.cidr: IPv4Network | None = None
        self.routes: Routes = {}
        self.was_told: list[Routes] = []

    def balance(self, cidr: IPv4Network | None, routes: Routes) -> None:
        self.cidr, self.routes = cidr, routes
        self.was_told.append(routes)

    async def comes_to(self, routes: Routes) -> None:
        async def check() -> bool:
            return self.routes == routes

        await wait_until_async(check, 5, f"the routes {routes}")


@asynccontextmanager
async def balancing(client: FakeClient) -> AsyncIterator[Switch]:
    switch, nodes = Switch(), Informer(client, NODE)
    balancers = LoadBalancers(client, nodes, switch.balance)
    asyncio.get_running_loop().call_later(0.05, balancers.follow, CIDR)
    tasks = [asyncio.create_task(nodes.run()), asyncio.create_task(balancers.run())]
    try:
        yield switch
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_routes_follow_services_nodes_and_endpoints() -> None:
    client = FakeClient()
    await client.create(node("a", A))
    await client.create(node("b", B))
    async with balancing(client) as switch:
        await client.create(service())
        await client.patch(SERVICE, "web", {"status": service()["status"]}, "default", subresource="status")
        await switch.comes_to({VIP: Hop(via=A, others=(B,))})
        assert switch.cidr == CIDR
        await client.patch(NODE, "b", {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
                           subresource="status")  # fmt: skip
        await switch.comes_to({VIP: Hop(via=A)})
        await client.patch(SERVICE, "web", {"spec": {"externalTrafficPolicy": "Local"}}, "default")
        await switch.comes_to({})
        await client.create(slice_of("web", ("a", READY)))
        await switch.comes_to({VIP: Hop(via=A)})
        await client.delete(ENDPOINT_SLICE, "web-1", "default")
        await switch.comes_to({})
        await client.patch(SERVICE, "web", {"spec": {"externalTrafficPolicy": "Cluster"}}, "default")
        await switch.comes_to({VIP: Hop(via=A)})
        await client.patch(SERVICE, "web", {"spec": {"type": "ClusterIP"}}, "default")
        await switch.comes_to({})


async def test_an_agent_that_starts_again_takes_no_route_away() -> None:
    client = FakeClient()
    await client.create(node("a", A))
    for wanted in (service(), service("local", "192.0.2.8", externalTrafficPolicy="Local")):
        await client.create(wanted)
        await client.patch(SERVICE, wanted["metadata"]["name"], {"status": wanted["status"]}, "default",
                           subresource="status")  # fmt: skip
    await client.create(slice_of("local", ("a", READY)))
    both = {VIP: Hop(via=A), IPv4Network("192.0.2.8/32"): Hop(via=A)}
    async with balancing(client) as switch:
        await switch.comes_to(both)
    assert all(told == both for told in switch.was_told)
