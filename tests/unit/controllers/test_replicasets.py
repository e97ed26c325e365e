import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.api.kinds import POD, REPLICA_SET
from testbed.api.objects import Object, controller_of, is_deleting, is_ready, labels, name, status, uid
from testbed.client.fake import FakeClient
from testbed.client.protocol import Client
from testbed.controllers.replicasets import DELETION_COST, least_wanted
from testbed.errors import NotFound, ServiceUnavailable
from tests.unit.client.clients import fake
from tests.unit.controllers.harness import (
    add_node,
    controlled,
    eventually,
    pod,
    pods,
    ready_pods,
    replica_set,
    set_ready,
)


async def scale(client: Client, replicas: int) -> None:
    await client.patch(REPLICA_SET, "web", {"spec": {"replicas": replicas}}, "default", subresource="scale")


async def status_becomes(client: Client, **wanted: int) -> None:
    async def check() -> bool:
        return wanted.items() <= status(await client.get(REPLICA_SET, "web", "default")).items()

    await eventually(check, f"the status is {wanted}")


async def test_it_has_as_many_pods_as_asked_for_up_and_down(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(replica_set(3))
        for replicas in (3, 7, 2, 0, 1):
            await scale(client, replicas)
            await ready_pods(client, replicas)
            await status_becomes(client, replicas=replicas, readyReplicas=replicas, availableReplicas=replicas)


async def test_its_pods_carry_its_labels_name_and_ownership(client: Client) -> None:
    async with controlled(client):
        owner = await client.create(replica_set(1))
        [made] = await eventually(lambda: pods(client), "there is a pod")
    assert name(made).startswith("web-")
    assert labels(made) == {"app": "web"}
    assert controller_of(made)["uid"] == uid(owner)


async def test_a_pod_that_is_deleted_or_has_ended_is_replaced(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(replica_set(2))
        first, second = await ready_pods(client, 2)
        await client.delete(POD, name(first), "default")
        await client.patch(POD, name(second), {"status": {"phase": "Failed"}}, "default", subresource="status")

        async def replaced() -> bool:
            found = [pod for pod in await pods(client) if is_ready(pod) and status(pod)["phase"] == "Running"]
            return len(found) == 2 and not {uid(pod) for pod in found} & {uid(first), uid(second)}

        await eventually(replaced, "both have successors")


async def test_it_adopts_pods_that_it_selects_and_that_nobody_owns(client: Client) -> None:
    await add_node(client, "a")
    orphan = await client.create(pod("stray", labels={"app": "web"}))
    async with controlled(client):
        owner = await client.create(replica_set(2))
        found = await ready_pods(client, 2)
        assert uid(orphan) in {uid(pod) for pod in found}
        assert {controller_of(pod)["uid"] for pod in found} == {uid(owner)}


async def test_it_releases_a_pod_whose_labels_no_longer_match_and_makes_another(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(replica_set(1))
        [released] = await ready_pods(client, 1)
        await client.patch(POD, name(released), {"metadata": {"labels": {"app": "debug"}}}, "default")
        await ready_pods(client, 1, "app=web")
        assert not controller_of(await client.get(POD, name(released), "default"))


async def test_a_slow_or_broken_watch_makes_no_second_pod() -> None:
    async with fake() as client:
        assert isinstance(client, FakeClient)
        async with controlled(client):
            await client.create(replica_set(5))
            for _ in range(20):
                client.disconnect()
                client.forget()
                await asyncio.sleep(0.005)
        created = (await client.list(POD)).items
    assert len(created) == 5


async def test_creations_that_fail_are_made_up_for() -> None:
    async with fake() as flaky:
        assert isinstance(flaky, FakeClient)
        refusals = iter(range(7))

        def refuse(verb: str, kind: object, _: object) -> None:
            if (verb, kind) == ("create", POD) and next(refusals, None) is not None:
                raise ServiceUnavailable("the server is away")

        flaky.intercept = refuse
        await add_node(flaky, "a")
        async with controlled(flaky):
            await flaky.create(replica_set(5))
            await ready_pods(flaky, 5)


async def test_pods_count_as_available_only_after_min_ready_seconds(client: Client) -> None:
    await add_node(client, "a")
    wanted = replica_set(1)
    wanted["spec"]["minReadySeconds"] = 4_000_000_000
    async with controlled(client):
        await client.create(wanted)
        await status_becomes(client, readyReplicas=1, availableReplicas=0)


def running_pod(name: str, *, ready: bool = True, node: str = "a", **fields: object) -> Object:
    condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    made = pod(name, node)
    made["metadata"] |= {"creationTimestamp": "2026-01-01T00:00:00Z"}
    made["status"] = {"phase": "Running", "conditions": [condition], **fields}
    return made


def test_the_least_useful_pods_are_given_up_first() -> None:
    unbound = running_pod("unbound", ready=False, node="")
    pending = running_pod("pending", ready=False, phase="Pending")
    unready = running_pod("unready", ready=False)
    cheap = running_pod("cheap")
    cheap["metadata"]["annotations"] = {DELETION_COST: "-1"}
    crowded = [running_pod("crowded-1", node="b"), running_pod("crowded-2", node="b")]
    restarted = running_pod("restarted", node="c", containerStatuses=[{"restartCount": 3}])
    steady = running_pod("steady", node="d")
    shuffled = [steady, *crowded, cheap, pending, restarted, unbound, unready]
    assert [name(pod) for pod in least_wanted(shuffled)] == [
        "unbound", "pending", "unready", "cheap", "crowded-2", "crowded-1", "restarted", "steady",
    ]  # fmt: skip


def test_a_cost_that_is_no_number_costs_nothing() -> None:
    dear, odd = pod("dear"), pod("odd")
    dear["metadata"]["annotations"], odd["metadata"]["annotations"] = {DELETION_COST: "5"}, {DELETION_COST: "much"}
    assert [name(found) for found in least_wanted([dear, odd])] == ["odd", "dear"]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("scale"), st.integers(0, 6)),
        st.tuples(st.just("kill"), st.integers(0, 6)),
        st.tuples(st.just("unready"), st.integers(0, 6)),
        st.tuples(st.just("disconnect"), st.just(0)),
    ),
    max_size=12,
)


@given(STEPS)
@settings(max_examples=25, deadline=None)
def test_whatever_happens_the_number_of_pods_becomes_what_was_last_asked_for(steps: list[tuple[str, int]]) -> None:
    asyncio.run(_converges(steps))


async def _converges(steps: list[tuple[str, int]]) -> None:
    async with fake() as client, controlled(client):
        assert isinstance(client, FakeClient)
        await add_node(client, "a")
        await client.create(replica_set(2))
        wanted = 2
        for step, number in steps:
            if step == "scale":
                wanted = number
            await _step(client, step, number)
        await eventually(lambda: _has(client, wanted), f"there are {wanted} pods")


async def _step(client: FakeClient, step: str, number: int) -> None:
    found = await pods(client)
    chosen = found[number % len(found)] if found else None
    match step:
        case "scale":
            await scale(client, number)
        case "disconnect":
            client.disconnect()
        case "kill" if chosen:
            await client.delete(POD, name(chosen), "default")
        case "unready" if chosen:
            await set_ready(client, chosen, ready=False)
    await asyncio.sleep(0.001 * (number % 3))


async def _has(client: FakeClient, count: int) -> bool:
    try:
        held = await client.get(REPLICA_SET, "web", "default")
    except NotFound:
        return False
    found = (await client.list(POD)).items
    return len(found) == count == status(held).get("replicas", 0) and not any(map(is_deleting, found))
