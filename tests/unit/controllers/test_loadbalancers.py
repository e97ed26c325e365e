"""Which address a Service of type LoadBalancer gets, and keeps."""

import json
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from testbed.api.kinds import CONFIG_MAP, EVENT, SERVICE
from testbed.api.objects import Object, name, status
from testbed.client.protocol import Client
from tests.unit.apiserver.parts import SPEC
from tests.unit.controllers.harness import controlled, eventually, service

FOREIGN = "example.com/internal-vip"


def settings(cidr: str | None) -> Object:
    """The ConfigMap that everybody follows."""
    network = IPv4Network(cidr) if cidr else None
    spec = replace(SPEC, services=replace(SPEC.services, load_balancer_cidr=network))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "testbed", "namespace": "kube-system"},
        "data": {"spec.json": json.dumps(spec.to_json())},
    }


def balanced(name: str = "web", **fields: Any) -> Object:
    return service(name, type="LoadBalancer", **fields)


async def ingress(client: Client, name: str = "web") -> list[dict[str, Any]]:
    balancer = status(await client.get(SERVICE, name, "default")).get("loadBalancer") or {}
    return balancer.get("ingress") or []


async def address_of(client: Client, name: str = "web") -> str:
    async def check() -> str:
        return next((entry["ip"] for entry in await ingress(client, name)), "")

    return await eventually(check, f"{name} has an address")


async def address_becomes(client: Client, wanted: str, name: str = "web") -> None:
    async def check() -> bool:
        return [entry["ip"] for entry in await ingress(client, name)] == ([wanted] if wanted else [])

    await eventually(check, f"the address of {name} is {wanted!r}")


async def complaint_of(client: Client, name: str) -> str:
    async def check() -> str:
        events = (await client.list(EVENT, "default", field_selector=f"involvedObject.name={name}")).items
        return next((event["message"] for event in events if event["reason"] == "SyncLoadBalancerFailed"), "")

    return await eventually(check, f"an Event about {name}")


async def test_each_service_gets_an_address_of_its_own(client: Client) -> None:
    await client.create(settings("192.0.2.0/29"))
    async with controlled(client):
        for number in range(6):
            await client.create(balanced(f"s{number}"))
        addresses = {await address_of(client, f"s{number}") for number in range(6)}
    assert addresses == {f"192.0.2.{number}" for number in range(1, 7)}
    assert await ingress(client, "s0") == [{"ip": "192.0.2.1", "ipMode": "VIP"}]


async def test_an_address_is_kept_over_a_restart(client: Client) -> None:
    await client.create(settings("192.0.2.0/24"))
    async with controlled(client):
        await client.create(balanced("first"))
        await address_of(client, "first")
        await client.create(balanced())
        before = await address_of(client)
        await client.delete(SERVICE, "first", "default")
    async with controlled(client):
        await client.create(balanced("later"))
        assert await address_of(client, "later") != before
        assert await address_of(client) == before


async def test_a_full_network_is_told_and_an_address_that_comes_free_is_given(client: Client) -> None:
    await client.create(settings("192.0.2.4/32"))
    async with controlled(client):
        await client.create(balanced("first"))
        await address_becomes(client, "192.0.2.4", "first")
        await client.create(balanced("second"))
        assert "no address of 192.0.2.4/32 is free" in await complaint_of(client, "second")
        assert await ingress(client, "second") == []
        await client.delete(SERVICE, "first", "default")
        await address_becomes(client, "192.0.2.4", "second")


async def test_an_address_goes_back_with_the_type(client: Client) -> None:
    await client.create(settings("192.0.2.4/32"))
    async with controlled(client):
        await client.create(balanced("first"))
        await address_becomes(client, "192.0.2.4", "first")
        await client.create(balanced("second"))
        await client.patch(SERVICE, "first", {"spec": {"type": "ClusterIP"}}, "default")
        await client.patch(SERVICE, "first", {"status": {"loadBalancer": None}}, "default", subresource="status")
        await address_becomes(client, "192.0.2.4", "second")


async def test_the_address_asked_for_is_given_where_it_can_be(client: Client) -> None:
    await client.create(settings("192.0.2.0/24"))
    async with controlled(client):
        await client.create(balanced(loadBalancerIP="192.0.2.77"))
        await address_becomes(client, "192.0.2.77")
        await client.create(balanced("taken", loadBalancerIP="192.0.2.77"))
        assert "192.0.2.77 is the address of default/web" in await complaint_of(client, "taken")
        await client.create(balanced("outside", loadBalancerIP="198.51.100.1"))
        assert "198.51.100.1 is not in 192.0.2.0/24" in await complaint_of(client, "outside")
        await client.patch(SERVICE, "web", {"spec": {"loadBalancerIP": "192.0.2.78"}}, "default")
        await address_becomes(client, "192.0.2.78")
        await address_becomes(client, "192.0.2.77", "taken")


async def test_without_a_network_services_wait_and_get_their_address_with_it(client: Client) -> None:
    await client.create(settings(None))
    async with controlled(client):
        await client.create(balanced())
        assert "the cluster has no loadBalancerCIDR" in await complaint_of(client, "web")
        await client.patch(CONFIG_MAP, "testbed", {"data": settings("192.0.2.0/24")["data"]}, "kube-system")
        await address_becomes(client, "192.0.2.1")
        await client.patch(CONFIG_MAP, "testbed", {"data": settings("198.51.100.0/24")["data"]}, "kube-system")
        await address_becomes(client, "198.51.100.2")


async def test_the_load_balancer_of_somebody_else_is_left_alone(client: Client) -> None:
    await client.create(settings("192.0.2.0/24"))
    async with controlled(client):
        foreign = await client.create(balanced("foreign", loadBalancerClass=FOREIGN))
        theirs = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}}
        await client.patch(SERVICE, name(foreign), theirs, "default", subresource="status")
        await client.create(balanced())
        await address_becomes(client, "192.0.2.2")
        assert [entry["ip"] for entry in await ingress(client, "foreign")] == ["192.0.2.1"]


async def test_of_two_that_hold_one_address_one_gets_another(client: Client) -> None:
    await client.create(settings("192.0.2.0/24"))
    async with controlled(client):
        for which in ("a", "b"):
            await client.create(balanced(which))
            await address_of(client, which)
        theirs = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}}
        await client.patch(SERVICE, "b", theirs, "default", subresource="status")
        await address_becomes(client, "192.0.2.3", "b")
        await address_becomes(client, "192.0.2.1", "a")
