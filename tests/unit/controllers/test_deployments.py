from functools import partial
from typing import Any

from testbed.api.kinds import DEPLOYMENT, POD, REPLICA_SET
from testbed.api.objects import Object, annotations, condition, controller_of, labels, name, spec, status, uid
from testbed.api.wellknown import POD_TEMPLATE_HASH_LABEL, REVISION_ANNOTATION
from testbed.client.protocol import Client
from testbed.controllers.progress import FOR_EVER_S
from testbed.controllers.revisions import HISTORY_ANNOTATION, template_hash
from tests.unit.controllers.harness import (
    add_node,
    controlled,
    deployment,
    eventually,
    pods,
    ready_pods,
    replica_set,
    template_spec,
)


async def set_image(client: Client, image: str, **fields: Any) -> None:
    containers = [{**template_spec()["containers"][0], "image": image}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}, **fields}}
    await client.patch(DEPLOYMENT, "web", patch, "default")


async def status_becomes(client: Client, **wanted: int) -> Object:
    async def check() -> Object | None:
        found = await client.get(DEPLOYMENT, "web", "default")
        told = {field: status(found).get(field, 0) for field in wanted}
        is_fresh = status(found).get("observedGeneration") == found["metadata"]["generation"]
        return found if is_fresh and told == wanted else None

    return await eventually(check, f"the status is {wanted}")


async def replica_sets(client: Client) -> dict[str, int]:
    """Image to replicas."""
    found = (await client.list(REPLICA_SET)).items
    return {spec(rs)["template"]["spec"]["containers"][0]["image"]: spec(rs)["replicas"] for rs in found}


async def test_it_has_a_replica_set_named_by_the_hash_of_its_template(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        created = await client.create(deployment(2))
        found = await ready_pods(client, 2)
        [made] = (await client.list(REPLICA_SET)).items
        assert name(made) == f"web-{template_hash(created)}"
        assert controller_of(made)["uid"] == uid(created)
        assert {labels(pod)[POD_TEMPLATE_HASH_LABEL] for pod in found} == {template_hash(created)}
        assert spec(made)["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": template_hash(created)}


async def test_scaling_reaches_the_pods_and_the_status(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(deployment(1))
        for replicas in (4, 0, 2):
            await client.patch(DEPLOYMENT, "web", {"spec": {"replicas": replicas}}, "default", subresource="scale")
            await ready_pods(client, replicas)
            await status_becomes(client, replicas=replicas, availableReplicas=replicas, unavailableReplicas=0)
        assert len((await client.list(REPLICA_SET)).items) == 1


async def test_its_conditions_say_available_and_done(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(deployment(1))
        done = await status_becomes(client, availableReplicas=1)
        assert condition(done, "Available")["reason"] == "MinimumReplicasAvailable"
        assert condition(done, "Progressing")["reason"] == "NewReplicaSetAvailable"


async def test_without_a_node_it_is_not_available(client: Client) -> None:
    async with controlled(client):
        await client.create(deployment(2))
        stuck = await status_becomes(client, replicas=2, unavailableReplicas=2)
        assert condition(stuck, "Available")["status"] == "False"


async def test_a_changed_template_replaces_every_pod_and_keeps_enough_available(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(deployment(4))
        old = {uid(pod) for pod in await ready_pods(client, 4)}
        await set_image(client, "web:2")
        fewest = 4

        async def replaced() -> bool:
            nonlocal fewest
            found = await pods(client)
            told = status(await client.get(DEPLOYMENT, "web", "default"))
            fewest = min(fewest, len(found))
            return told["updatedReplicas"] == told["replicas"] == 4 and not old & {uid(pod) for pod in found}

        await eventually(replaced, "all pods are new")
        assert fewest >= 3
        assert await replica_sets(client) == {"web": 0, "web:2": 4}


async def test_a_template_that_comes_back_uses_its_old_replica_set_as_the_newest_revision(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(deployment(1))
        await status_becomes(client, availableReplicas=1)
        for image, revision in (("web:2", "2"), ("web", "3")):
            await set_image(client, image)

            await eventually(partial(_runs, client, image), f"{image} runs")
            found = await client.get(DEPLOYMENT, "web", "default")
            assert annotations(found)[REVISION_ANNOTATION] == revision
        assert len((await client.list(REPLICA_SET)).items) == 2


def as_go_writes_it(value: Any) -> Any:
    """A document as a client in Go writes it back: without what is empty or false, and with an empty time."""
    if isinstance(value, list):
        return [as_go_writes_it(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: as_go_writes_it(item) for key, item in value.items() if item not in (False, [], None)}
    return kept | ({"creationTimestamp": None} if "labels" in kept else {})


async def test_an_undo_as_kubectl_does_it_uses_the_old_replica_set_and_raises_its_revision(client: Client) -> None:
    await add_node(client, "a")
    first = deployment(2)
    first["spec"]["template"]["spec"] |= {"hostNetwork": False, "nodeSelector": {}, "tolerations": []}
    first["metadata"]["annotations"] = {"kubernetes.io/change-cause": "first"}
    async with controlled(client):
        await client.create(first)
        await ready_pods(client, 2)
        [old] = (await client.list(REPLICA_SET)).items
        await set_image(client, "web:2")
        await status_becomes(client, updatedReplicas=2, replicas=2, availableReplicas=2)
        template = as_go_writes_it(spec(old)["template"])
        del template["metadata"]["labels"][POD_TEMPLATE_HASH_LABEL]
        await client.patch(DEPLOYMENT, "web", {"spec": {"template": template}}, "default")

        async def undone() -> Object | None:
            found = await client.get(REPLICA_SET, name(old), "default")
            return found if status(found).get("availableReplicas") == 2 else None

        again = await eventually(undone, "the first ReplicaSet has all pods")
        assert annotations(again)[REVISION_ANNOTATION] == "3"
        assert annotations(again)[HISTORY_ANNOTATION] == "1"
        assert annotations(again)["kubernetes.io/change-cause"] == "first"
        assert len((await client.list(REPLICA_SET)).items) == 2


async def test_a_paused_deployment_is_scaled_and_rolls_only_when_it_is_resumed(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(deployment(2))
        await ready_pods(client, 2)
        await set_image(client, "web:2", paused=True, replicas=3)
        told = await status_becomes(client, replicas=3, availableReplicas=3, updatedReplicas=0)
        assert await replica_sets(client) == {"web": 3}
        assert condition(told, "Progressing")["reason"] == "DeploymentPaused"
        await client.patch(DEPLOYMENT, "web", {"spec": {"paused": None}}, "default")
        await status_becomes(client, replicas=3, availableReplicas=3, updatedReplicas=3)
        assert await replica_sets(client) == {"web": 0, "web:2": 3}


async def test_a_rollout_that_stands_still_for_too_long_is_told_and_one_that_goes_on_is_told_too(
    client: Client,
) -> None:
    async with controlled(client):  # there is no node yet
        await client.create(deployment(1, progressDeadlineSeconds=1))

        async def reason() -> str:
            return str(condition(await client.get(DEPLOYMENT, "web", "default"), "Progressing").get("reason"))

        async def is_late() -> bool:
            return await reason() == "ProgressDeadlineExceeded"

        async def is_done() -> bool:
            return await reason() == "NewReplicaSetAvailable"

        await eventually(is_late, "the deadline is exceeded")
        stuck = await client.get(DEPLOYMENT, "web", "default")
        assert condition(stuck, "Progressing")["status"] == "False"
        await add_node(client, "a")
        await eventually(is_done, "the rollout is done after all")


async def test_a_pod_is_available_when_it_has_been_ready_for_long_enough(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(deployment(1, minReadySeconds=10**9, progressDeadlineSeconds=FOR_EVER_S))
        await status_becomes(client, readyReplicas=1, availableReplicas=0)
        await client.patch(DEPLOYMENT, "web", {"spec": {"minReadySeconds": 0}}, "default")
        await status_becomes(client, readyReplicas=1, availableReplicas=1)


async def test_old_replica_sets_beyond_the_limit_are_removed(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(deployment(1, revisionHistoryLimit=1))
        for number in (2, 3, 4):
            await set_image(client, f"web:{number}")
            await eventually(partial(_runs, client, f"web:{number}"), f"web:{number} runs")

        async def trimmed() -> bool:
            return await replica_sets(client) == {"web:3": 0, "web:4": 1}

        await eventually(trimmed, "one old ReplicaSet is left")


async def _runs(client: Client, image: str) -> bool:
    scales = await replica_sets(client)
    return scales.get(image) == 1 == sum(scales.values())


async def test_recreate_never_runs_old_and_new_side_by_side(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(deployment(3, strategy={"type": "Recreate"}))
        await ready_pods(client, 3)
        await set_image(client, "web:2")

        async def replaced() -> bool:
            images = [spec(pod)["containers"][0]["image"] for pod in (await client.list(POD)).items]
            assert len(set(images)) <= 1
            return images == ["web:2"] * 3

        await eventually(replaced, "three new pods")


async def test_an_orphaned_replica_set_is_adopted_and_replaced(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        like = replica_set(1, "web")
        like["metadata"]["labels"] = {"app": "web"}
        orphan = await client.create(like)
        await ready_pods(client, 1)
        owner = await client.create(deployment(2))
        await status_becomes(client, replicas=2, availableReplicas=2)
        adopted = await client.get(REPLICA_SET, name(orphan), "default")
        assert controller_of(adopted)["uid"] == uid(owner)


async def test_a_revision_that_is_no_number_and_a_condition_without_a_time_hold_nothing_up(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(deployment(1))
        await status_becomes(client, availableReplicas=1)
        [old] = (await client.list(REPLICA_SET)).items
        note = {"metadata": {"annotations": {REVISION_ANNOTATION: "first"}}}
        await client.patch(REPLICA_SET, name(old), note, "default")
        bare = {"status": {"conditions": [{"type": "Available", "status": "False"}]}}
        await client.patch(DEPLOYMENT, "web", bare, "default", subresource="status")
        await set_image(client, "web:2")
        await status_becomes(client, updatedReplicas=1, availableReplicas=1, replicas=1)
