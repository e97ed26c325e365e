import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from testbed.api.kinds import EVENT, LEASE, NODE, POD
from testbed.api.objects import condition, is_ready, now_micro, uid
from testbed.client.protocol import Client
from testbed.controllers.cluster import Cluster
from testbed.controllers.nodes import Nodes
from testbed.errors import NotFound
from tests.unit.controllers.harness import add_node, eventually, pod, running, set_ready

GRACE_S = 0.6
"""In place of 40 s."""


@asynccontextmanager
async def watched(client: Client) -> AsyncIterator[None]:
    """The node controller alone, with little patience."""
    cluster = Cluster(client)
    nodes = Nodes(cluster, grace_s=GRACE_S)
    async with running(*(informer.run() for informer in cluster.informers.values())):
        await cluster.synced()
        async with running(nodes.loop.run()):
            yield


async def renew(client: Client, node: str) -> None:
    """What an agent does every ten seconds."""
    patch = {"spec": {"holderIdentity": node, "renewTime": now_micro()}}
    try:
        await client.patch(LEASE, node, patch, "kube-node-lease")
    except NotFound:
        meta = {"name": node, "namespace": "kube-node-lease"}
        await client.create({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, **patch})


async def keep_renewing(client: Client, node: str) -> None:
    """A healthy agent."""
    while True:
        await renew(client, node)
        await asyncio.sleep(GRACE_S / 10)


async def ready_becomes(client: Client, value: str) -> None:
    async def check() -> bool:
        return condition(await client.get(NODE, "a"), "Ready").get("status") == value

    await eventually(check, f"Ready is {value}")


async def test_a_node_that_renews_its_lease_stays_ready(client: Client) -> None:
    await add_node(client, "a")
    async with watched(client), running(keep_renewing(client, "a")):
        await asyncio.sleep(GRACE_S * 2)
        assert is_ready(await client.get(NODE, "a"))


async def test_a_silent_node_is_unknown_until_it_is_heard_again(client: Client) -> None:
    await add_node(client, "a")
    async with watched(client):
        await renew(client, "a")
        await ready_becomes(client, "Unknown")
        assert condition(await client.get(NODE, "a"), "Ready")["reason"] == "NodeStatusUnknown"
        async with running(keep_renewing(client, "a")):
            await ready_becomes(client, "True")
        reasons = [event["reason"] for event in (await client.list(EVENT)).items]
        assert reasons.count("NodeNotReady") == 1


async def test_pods_of_a_silent_node_are_not_ready_and_come_back_with_it(client: Client) -> None:
    await add_node(client, "a")
    sound = await client.create(pod("sound", "a"))
    await set_ready(client, sound, ready=True, address="10.244.0.2")
    broken = await client.create(pod("broken", "a"))
    await set_ready(client, broken, ready=False, address="10.244.0.3")

    async def readiness() -> list[bool]:
        return [is_ready(await client.get(POD, which, "default")) for which in ("sound", "broken")]

    async def is_down() -> bool:
        return await readiness() == [False, False]

    async def is_up() -> bool:
        return await readiness() == [True, False]

    async with watched(client):
        await eventually(is_down, "no pod is ready")
        async with running(keep_renewing(client, "a")):
            await eventually(is_up, "the sound pod is ready again")


async def test_pods_of_a_node_that_has_gone_are_deleted_at_once(client: Client) -> None:
    await add_node(client, "a")
    await add_node(client, "b")
    await client.create(pod("lost", "a"))
    staying = await client.create(pod("staying", "b"))
    async with watched(client):
        await client.delete(NODE, "a")

        async def swept() -> bool:
            return [uid(pod) for pod in (await client.list(POD)).items] == [uid(staying)]

        await eventually(swept, "only the pod of the other node is left")


async def test_a_pod_bound_to_a_node_that_is_yet_to_come_is_spared_for_a_while(client: Client) -> None:
    async with watched(client):
        await client.create(pod("early", "a"))
        await client.create(pod("lost", "never"))
        await asyncio.sleep(GRACE_S / 3)
        await add_node(client, "a")

        async def swept() -> bool:
            return [pod["metadata"]["name"] for pod in (await client.list(POD)).items] == ["early"]

        await eventually(swept, "only the pod whose node came is left")


async def test_a_node_that_comes_anew_by_the_same_name_does_not_keep_the_pods(client: Client) -> None:
    await add_node(client, "a")
    await client.create(pod("lost", "a"))
    async with watched(client), running(keep_renewing(client, "a")):
        await client.delete(NODE, "a")
        await add_node(client, "a")
        await eventually(lambda: _none(client), "the pod is gone")
        await client.create(pod("new", "a"))
        await asyncio.sleep(GRACE_S * 1.5)
        assert [pod["metadata"]["name"] for pod in (await client.list(POD)).items] == ["new"]


async def _none(client: Client) -> bool:
    return not (await client.list(POD)).items
