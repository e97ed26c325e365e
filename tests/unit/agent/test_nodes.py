"""Node objects and leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from testbed.agent.nodes import Nodes, corrections, node_object
from testbed.api import objects
from testbed.api.kinds import LEASE, NODE
from testbed.api.objects import condition, is_ready, labels, spec, status
from testbed.api.wellknown import LEASE_NAMESPACE
from testbed.client.fake import FakeClient
from testbed.client.informer import Informer
from testbed.errors import NotFound
from tests.unit.agent.specs import cluster, node


@asynccontextmanager
async def nodes_over(client: FakeClient) -> AsyncIterator[Nodes]:
    informer = Informer(client, NODE)
    running = asyncio.create_task(informer.run())
    await informer.synced.wait()
    yield Nodes(client, "here", informer)
    running.cancel()


def test_a_worker_tells_what_its_peers_must_know() -> None:
    made = node_object(cluster(), node("a", 1))
    assert labels(made)["kubernetes.io/hostname"] == "a"
    assert labels(made)["zone"] == "z1"
    assert objects.annotations(made)["testbed/underlay-address"] == "198.18.0.11"
    assert spec(made)["podCIDR"] == "10.244.1.0/24"
    assert status(made)["daemonEndpoints"]["kubeletEndpoint"] == {"Port": 10250, "Address": "198.18.0.1"}
    assert is_ready(made)


def test_an_external_node_takes_no_pods_by_itself() -> None:
    made = node_object(cluster(), node("client", 9, role="external"))
    assert spec(made) == {"taints": [{"key": "testbed/external", "effect": "NoSchedule"}]}


def test_labels_that_the_topology_no_longer_gives_are_taken_away_and_those_of_others_stay() -> None:
    held = node_object(cluster(), node("a", 1))
    held["metadata"]["labels"]["mine"] = "yes"
    patch, state = corrections(held, node_object(cluster(), replace(node("a", 1), labels={"zone2": "z"})))
    assert patch["metadata"]["labels"] == {"zone": None, "zone2": "z"}
    assert state == {}


def test_a_node_that_says_what_it_should_is_left_alone() -> None:
    held = node_object(cluster(), node("a", 1))
    held["status"]["conditions"].append({"type": "NetworkUnavailable", "status": "False"})
    assert corrections(held, node_object(cluster(), node("a", 1))) == ({}, {})


async def test_wired_nodes_register_with_a_lease() -> None:
    client = FakeClient()
    async with nodes_over(client) as nodes:
        await nodes.sync(cluster(), {"a"})
    assert is_ready(await client.get(NODE, "a"))
    assert spec(await client.get(LEASE, "a", LEASE_NAMESPACE))["leaseDurationSeconds"] == 40
    with pytest.raises(NotFound):
        await client.get(NODE, "b")


async def test_an_agent_that_comes_back_renews_the_leases_of_its_nodes_at_once() -> None:
    client = FakeClient()
    async with nodes_over(client) as nodes:
        await nodes.sync(cluster(), {"a"})
    before = spec(await client.get(LEASE, "a", LEASE_NAMESPACE))["renewTime"]
    async with nodes_over(client) as nodes:
        await nodes.sync(cluster(), {"a"})
    assert spec(await client.get(LEASE, "a", LEASE_NAMESPACE))["renewTime"] > before


async def test_nodes_that_the_spec_no_longer_has_are_deleted_and_those_of_other_hosts_are_not() -> None:
    client = FakeClient()
    await client.create(
        node_object(replace(cluster(), hosts=(replace(cluster().hosts[0], name="there"),)), node("x", 7, host="there"))
    )
    async with nodes_over(client) as nodes:
        await nodes.sync(cluster(), {"a", "b"})
        await nodes.sync(cluster(node("a", 1)), {"a"})
    assert {item["metadata"]["name"] for item in (await client.list(NODE)).items} == {"a", "x"}


async def test_a_node_that_was_taken_for_dead_is_ready_again_and_keeps_its_other_conditions() -> None:
    client = FakeClient()
    async with nodes_over(client) as nodes:
        await nodes.sync(cluster(), {"a"})
        silent = [{"type": "Ready", "status": "Unknown"}, {"type": "NetworkUnavailable", "status": "False"}]
        await client.patch(NODE, "a", {"status": {"conditions": silent}}, subresource="status")
    async with nodes_over(client) as nodes:
        await nodes.sync(cluster(), {"a"})
    held = await client.get(NODE, "a")
    assert is_ready(held)
    assert condition(held, "NetworkUnavailable")["status"] == "False"


async def test_a_node_with_another_pod_network_is_made_anew() -> None:
    client = FakeClient()
    async with nodes_over(client) as nodes:
        await nodes.sync(cluster(node("a", 1)), {"a"})
        before = await client.get(NODE, "a")
        await nodes.sync(cluster(replace(node("a", 1), pod_cidr=node("b", 5).pod_cidr)), {"a"})
    after = await client.get(NODE, "a")
    assert spec(after)["podCIDR"] == "10.244.5.0/24"
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
