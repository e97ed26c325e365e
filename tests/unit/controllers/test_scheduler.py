import asyncio
from collections import Counter
from typing import Any

import pytest

from testbed.api.kinds import EVENT, NODE, POD
from testbed.api.objects import Object, condition, name, spec
from testbed.client.protocol import Client
from tests.unit.controllers.harness import add_node, controlled, deployment, eventually, pod, ready_pods, set_node_ready

ANTI_AFFINITY = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}
        ]
    }
}


async def node_of(client: Client, which: str) -> str:
    async def check() -> str | None:
        return spec(await client.get(POD, which, "default")).get("nodeName")

    return await eventually(check, f"{which} has a node")


async def refused(client: Client, which: str) -> str:
    async def check() -> str | None:
        held = condition(await client.get(POD, which, "default"), "PodScheduled")
        return held.get("message") if held.get("reason") == "Unschedulable" else None

    return await eventually(check, f"{which} is called unschedulable")


async def test_pods_of_a_workload_spread_evenly_over_the_nodes(client: Client) -> None:
    for node in ("a", "b", "c"):
        await add_node(client, node)
    async with controlled(client):
        await client.create(deployment(2, "small"))
        await ready_pods(client, 2, "app=small")
        await client.create(deployment(9))
        placed = Counter(spec(pod)["nodeName"] for pod in await ready_pods(client, 9, "app=web"))
    assert placed == {"a": 3, "b": 3, "c": 3}


async def test_lone_pods_go_where_the_fewest_are(client: Client) -> None:
    await add_node(client, "a")
    await add_node(client, "b")
    await client.create(pod("there", "a"))
    async with controlled(client):
        await client.create(pod("new"))
        assert await node_of(client, "new") == "b"


async def test_a_node_selector_chooses_the_node(client: Client) -> None:
    await add_node(client, "a")
    await add_node(client, "b", labels={"disk": "fast"})
    async with controlled(client):
        await client.create(pod("picky", nodeSelector={"disk": "fast"}))
        assert await node_of(client, "picky") == "b"


async def test_required_node_affinity_chooses_the_node(client: Client) -> None:
    await add_node(client, "a", labels={"disk": "slow"})
    await add_node(client, "b", labels={"disk": "fast"})
    expression = {"key": "disk", "operator": "NotIn", "values": ["slow"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    async with controlled(client):
        await client.create(pod("picky", affinity=affinity))
        assert await node_of(client, "picky") == "b"


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ({"unschedulable": True}, "0/1 nodes are available: 1 node(s) were unschedulable."),
        (
            {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]},
            "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: yes}.",
        ),
        ({"labels": {"testbed/role": "external"}}, "0/1 nodes are available: 1 node(s) were outside the cluster."),
    ],
)
async def test_a_pod_that_fits_nowhere_is_told_why(client: Client, node: dict[str, Any], why: str) -> None:
    await add_node(client, "a", **node)
    async with controlled(client):
        await client.create(pod("web"))
        assert await refused(client, "web") == why

        async def told() -> bool:
            events = (await client.list(EVENT)).items
            return any(event["reason"] == "FailedScheduling" and event["message"] == why for event in events)

        await eventually(told, "an event says so")


async def test_without_nodes_a_pod_waits_and_goes_to_the_first_that_comes(client: Client) -> None:
    async with controlled(client):
        await client.create(pod("web"))
        assert await refused(client, "web") == "no nodes available to schedule pods"
        await add_node(client, "late")
        assert await node_of(client, "web") == "late"


async def test_a_waiting_pod_goes_to_a_node_that_becomes_ready(client: Client) -> None:
    await add_node(client, "a")
    await set_node_ready(client, "a", ready=False)
    async with controlled(client):
        await client.create(pod("web"))
        assert "1 node(s) were not ready" in await refused(client, "web")
        await set_node_ready(client, "a", ready=True)
        assert await node_of(client, "web") == "a"


async def test_a_tolerated_taint_is_no_obstacle(client: Client) -> None:
    await add_node(client, "a", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])
    async with controlled(client):
        await client.create(pod("equal", tolerations=[{"key": "gpu", "operator": "Equal", "value": "yes"}]))
        await client.create(pod("exists", tolerations=[{"operator": "Exists"}]))
        assert await node_of(client, "equal") == await node_of(client, "exists") == "a"


async def test_an_external_node_takes_what_is_bound_to_it_by_hand(client: Client) -> None:
    await add_node(client, "outside", labels={"testbed/role": "external"})
    async with controlled(client):
        await client.create(pod("client", "outside", hostNetwork=True))
        [placed] = await ready_pods(client, 1)
        assert spec(placed)["nodeName"] == "outside"


def on_port(which: str, port: int, **fields: Any) -> Object:
    made = pod(which, **fields)
    made["spec"]["containers"][0]["ports"] = [{"containerPort": port, "hostPort": port}]
    return made


async def test_pods_that_want_the_same_host_port_go_to_different_nodes(client: Client) -> None:
    await add_node(client, "a")
    await add_node(client, "b")
    async with controlled(client):
        await client.create(on_port("one", 8080))
        await client.create(on_port("two", 8080, hostNetwork=True))
        placed = [await node_of(client, which) for which in ("one", "two")]
        assert sorted(placed) == ["a", "b"]
        await client.create(on_port("three", 8080))
        assert "2 node(s) didn't have free ports" in await refused(client, "three")
        await client.delete(POD, "one", "default")
        assert await node_of(client, "three") == placed[0]


async def test_anti_affinity_keeps_pods_on_different_nodes(client: Client) -> None:
    await add_node(client, "a")
    await add_node(client, "b")
    wanted = deployment(3)
    wanted["spec"]["template"]["spec"]["affinity"] = ANTI_AFFINITY
    async with controlled(client):
        await client.create(wanted)

        async def settled() -> list[Object] | None:
            found = (await client.list(POD)).items
            waiting = [pod for pod in found if condition(pod, "PodScheduled").get("reason") == "Unschedulable"]
            return found if len(waiting) == 1 else None

        found = await eventually(settled, "one pod finds no node")
        assert sorted(spec(pod).get("nodeName", "") for pod in found) == ["", "a", "b"]


async def test_anti_affinity_of_those_who_are_there_is_respected(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(pod("hermit", affinity=ANTI_AFFINITY))
        await node_of(client, "hermit")
        await client.create(pod("guest", labels={"app": "web"}))
        assert "existing pods anti-affinity rules" in await refused(client, "guest")


async def test_a_full_node_takes_no_more(client: Client) -> None:
    await add_node(client, "a")
    await client.patch(NODE, "a", {"status": {"allocatable": {"pods": "1"}}}, subresource="status")
    async with controlled(client):
        await client.create(pod("one"))
        await node_of(client, "one")
        await client.create(pod("two"))
        assert await refused(client, "two") == "0/1 nodes are available: 1 Too many pods."


async def test_pods_of_another_scheduler_are_left_alone(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(pod("foreign", schedulerName="theirs"))
        await client.create(pod("ours"))
        await node_of(client, "ours")
        await asyncio.sleep(0.05)
        assert not spec(await client.get(POD, "foreign", "default")).get("nodeName")


async def test_an_event_tells_where_a_pod_went(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(pod("web"))

        async def told() -> bool:
            messages = {event["message"] for event in (await client.list(EVENT)).items}
            return "Successfully assigned default/web to a" in messages

        await eventually(told, "the event is there")
    assert name(await client.get(POD, "web", "default")) == "web"
