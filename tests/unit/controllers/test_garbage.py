import asyncio

from testbed.api.kinds import CONFIG_MAP, DEPLOYMENT, POD, REPLICA_SET
from testbed.api.objects import Object, controller_of, metadata, name, owner_reference
from testbed.client.protocol import Client
from tests.unit.controllers.harness import add_node, controlled, deployment, eventually, ready_pods, vanished


def config_map(which: str, *owners: Object) -> Object:
    references = [{**owner_reference(owner), "controller": False} for owner in owners]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": which, "namespace": "default", "ownerReferences": references},
    }


async def gone(client: Client, which: str) -> None:
    async def check() -> bool:
        return which not in {name(obj) for obj in (await client.list(CONFIG_MAP)).items}

    await eventually(check, f"{which} is gone")


async def test_a_deployment_takes_its_replica_sets_and_pods_with_it(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(deployment(3))
        await ready_pods(client, 3)
        await client.delete(DEPLOYMENT, "web", "default")
        await vanished(client, REPLICA_SET)
        await vanished(client, POD)


async def test_what_is_owned_by_nobody_who_ever_was_is_deleted(client: Client) -> None:
    owner = await client.create(config_map("owner"))
    ghost = {**owner, "metadata": {**owner["metadata"], "uid": "00000000-0000-0000-0000-000000000000"}}
    async with controlled(client):
        await client.create(config_map("dependent", ghost))
        await gone(client, "dependent")
        assert await client.get(CONFIG_MAP, "owner", "default")


async def test_a_namesake_of_the_owner_is_not_the_owner(client: Client) -> None:
    first = await client.create(config_map("owner"))
    async with controlled(client):
        await client.create(config_map("dependent", first))
        await client.delete(CONFIG_MAP, "owner", "default")
        await client.create(config_map("owner"))
        await gone(client, "dependent")


async def test_one_living_owner_is_enough_and_the_dead_one_is_forgotten(client: Client) -> None:
    first, second = [await client.create(config_map(which)) for which in ("first", "second")]
    await client.create(config_map("dependent", first, second))
    async with controlled(client):
        await client.delete(CONFIG_MAP, "first", "default")

        async def forgotten() -> bool:
            references = metadata(await client.get(CONFIG_MAP, "dependent", "default"))["ownerReferences"]
            return [reference["name"] for reference in references] == ["second"]

        await eventually(forgotten, "only the living owner is named")
        await client.delete(CONFIG_MAP, "second", "default")
        await gone(client, "dependent")


async def test_what_a_controller_missed_while_it_was_away_is_collected(client: Client) -> None:
    owner = await client.create(config_map("owner"))
    await client.create(config_map("dependent", owner))
    await client.delete(CONFIG_MAP, "owner", "default")
    async with controlled(client):
        await gone(client, "dependent")


async def test_orphaning_lets_the_dependents_live(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(deployment(2))
        await ready_pods(client, 2)
        await client.delete(DEPLOYMENT, "web", "default", propagation="Orphan")
        await vanished(client, DEPLOYMENT)
        await asyncio.sleep(0.05)
        [orphan] = (await client.list(REPLICA_SET)).items
        assert not controller_of(orphan)
        assert len((await client.list(POD)).items) == 2


async def test_in_the_foreground_the_owner_goes_last(client: Client) -> None:
    await add_node(client, "a")
    async with controlled(client):
        await client.create(deployment(2))
        await ready_pods(client, 2)
        await client.delete(DEPLOYMENT, "web", "default", propagation="Foreground")

        async def checked() -> bool:
            deployments, sets, pods = [len((await client.list(kind)).items) for kind in (DEPLOYMENT, REPLICA_SET, POD)]
            assert deployments or not sets
            assert sets or not pods
            return not deployments

        await eventually(checked, "the Deployment is gone")
