"""What every client promises, run over each of them: in memory, over the store itself, over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from testbed.api.kinds import CONFIG_MAP, DEPLOYMENT, NAMESPACE, NODE, POD
from testbed.api.objects import Event, Object, is_deleting, name, resource_version, spec, status, uid
from testbed.client.protocol import Client
from testbed.errors import AlreadyExists, Conflict, NotFound
from tests.unit.client.clients import CLIENTS


@pytest.fixture(params=CLIENTS)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with CLIENTS[request.param]() as client:
        yield client


def config_map(name: str = "settings", **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "data": data,
    }


def pod(name: str = "web", node: str = "") -> Object:
    spec: Object = {"containers": [{"name": "main", "image": "testbed/web"}], "terminationGracePeriodSeconds": 5}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec | ({"nodeName": node} if node else {}),
    }


def deployment(replicas: int) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod()["spec"]},
        },
    }


async def watched(client: Client, count: int, since: int, label_selector: str = "") -> list[tuple[str, str]]:
    """The type and name of the next `count` changes of ConfigMaps."""
    seen: list[Event] = []
    events = client.watch(CONFIG_MAP, "default", since=since, label_selector=label_selector)
    async with asyncio.timeout(5), aclosing(events) as following:  # type: ignore[type-var]
        async for event in following:
            if event.type != "BOOKMARK":
                seen.append(event)
            if len(seen) == count:
                break
    return [(event.type, name(event.object)) for event in seen]


async def test_a_created_object_has_uid_version_and_time(client: Client) -> None:
    created = await client.create(config_map(a="1"))
    assert uid(created)
    assert resource_version(created) > 0
    assert created["metadata"]["creationTimestamp"]
    assert await client.get(CONFIG_MAP, "settings", "default") == created


async def test_a_name_is_taken_once(client: Client) -> None:
    await client.create(config_map())
    with pytest.raises(AlreadyExists):
        await client.create(config_map())


async def test_generate_name_makes_different_names(client: Client) -> None:
    names = set()
    for _ in range(3):
        obj = config_map()
        obj["metadata"] = {"generateName": "settings-", "namespace": "default"}
        names.add(name(await client.create(obj)))
    assert len(names) == 3
    assert all(made.startswith("settings-") for made in names)


async def test_what_is_not_there_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAP, "nothing", "default")
    with pytest.raises(NotFound):
        await client.update(config_map("nothing"))
    with pytest.raises(NotFound):
        await client.patch(CONFIG_MAP, "nothing", {"data": {"a": "1"}}, "default")
    with pytest.raises(NotFound):
        await client.delete(CONFIG_MAP, "nothing", "default")


async def test_a_write_based_on_an_old_version_conflicts(client: Client) -> None:
    old = await client.create(config_map(a="1"))
    new = await client.update({**old, "data": {"a": "2"}})
    assert resource_version(new) > resource_version(old)
    with pytest.raises(Conflict):
        await client.update({**old, "data": {"a": "3"}})
    with pytest.raises(Conflict):
        await client.patch(
            CONFIG_MAP, "settings", {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}}, "default"
        )


async def test_an_update_without_a_version_always_wins(client: Client) -> None:
    await client.create(config_map(a="1"))
    assert (await client.update(config_map(a="2")))["data"] == {"a": "2"}


async def test_a_merge_patch_sets_and_removes(client: Client) -> None:
    await client.create(config_map(a="1", b="2"))
    patched = await client.patch(CONFIG_MAP, "settings", {"data": {"a": None, "c": "3"}}, "default")
    assert patched["data"] == {"b": "2", "c": "3"}


async def test_a_write_that_changes_nothing_makes_no_version(client: Client) -> None:
    created = await client.create(config_map(a="1"))
    assert await client.update(created) == created
    assert await client.patch(CONFIG_MAP, "settings", {"data": {"a": "1"}}, "default") == created


async def test_objects_handed_out_are_copies(client: Client) -> None:
    created = await client.create(config_map(a="1"))
    created["data"]["a"] = "changed"
    listed = await client.list(CONFIG_MAP, "default", label_selector="app=settings")
    listed.items[0]["data"]["a"] = "changed"
    assert (await client.get(CONFIG_MAP, "settings", "default"))["data"] == {"a": "1"}


async def test_a_list_carries_kinds_and_honours_selectors(client: Client) -> None:
    await client.create(config_map("one"))
    await client.create(config_map("two"))
    listed = await client.list(CONFIG_MAP, label_selector="app in (one,two)")
    assert [name(obj) for obj in listed.items] == ["one", "two"]
    assert {(obj["apiVersion"], obj["kind"]) for obj in listed.items} == {("v1", "ConfigMap")}
    assert listed.resource_version >= max(map(resource_version, listed.items))
    by_name = await client.list(CONFIG_MAP, "default", field_selector="metadata.name=two")
    assert [name(obj) for obj in by_name.items] == ["two"]
    assert (await client.list(CONFIG_MAP, "kube-system", label_selector="app=one")).items == []


async def test_spec_and_status_are_written_apart(client: Client) -> None:
    created = await client.create({**deployment(3), "status": {"replicas": 7}})
    assert not status(created).get("replicas")
    await client.patch(DEPLOYMENT, "web", {"status": {"replicas": 2}}, "default", subresource="status")
    await client.patch(DEPLOYMENT, "web", {"status": {"replicas": 9}, "spec": {"replicas": 4}}, "default")
    stored = await client.get(DEPLOYMENT, "web", "default")
    assert (spec(stored)["replicas"], status(stored)["replicas"]) == (4, 2)
    stored["spec"]["replicas"], stored["status"]["replicas"] = 1, 5
    updated = await client.update(stored, subresource="status")
    assert (spec(updated)["replicas"], status(updated)["replicas"]) == (4, 5)


async def test_only_a_change_of_the_spec_is_a_new_generation(client: Client) -> None:
    created = await client.create(deployment(1))
    labelled = await client.patch(DEPLOYMENT, "web", {"metadata": {"labels": {"a": "b"}}}, "default")
    scaled = await client.patch(DEPLOYMENT, "web", {"spec": {"replicas": 2}}, "default")
    assert [obj["metadata"]["generation"] for obj in (created, labelled, scaled)] == [1, 1, 2]


async def test_scale_reads_and_writes_replicas(client: Client) -> None:
    await client.create(deployment(1))
    scale = await client.get(DEPLOYMENT, "web", "default", subresource="scale")
    assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 1)
    await client.patch(DEPLOYMENT, "web", {"spec": {"replicas": 5}}, "default", subresource="scale")
    assert spec(await client.get(DEPLOYMENT, "web", "default"))["replicas"] == 5


async def test_a_pod_without_a_node_is_deleted_at_once(client: Client) -> None:
    await client.create(pod())
    await client.delete(POD, "web", "default")
    with pytest.raises(NotFound):
        await client.get(POD, "web", "default")


async def test_a_pod_on_a_node_is_deleted_in_two_phases(client: Client) -> None:
    await client.create(pod(node="a"))
    await client.delete(POD, "web", "default")
    going = await client.get(POD, "web", "default")
    assert is_deleting(going)
    assert going["metadata"]["deletionGracePeriodSeconds"] == 5
    await client.delete(POD, "web", "default")  # asking again is fine, and does not start over
    assert await client.get(POD, "web", "default") == going
    await client.delete(POD, "web", "default", grace_period_s=0)
    with pytest.raises(NotFound):
        await client.get(POD, "web", "default")


async def test_a_delete_by_uid_spares_a_successor(client: Client) -> None:
    first = await client.create(pod())
    await client.delete(POD, "web", "default", uid=uid(first))
    await client.create(pod())
    with pytest.raises(Conflict):
        await client.delete(POD, "web", "default", uid=uid(first))


async def test_a_finalizer_holds_an_object_until_it_is_taken_off(client: Client) -> None:
    held = config_map()
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await client.create(held)
    await client.delete(CONFIG_MAP, "settings", "default")
    assert is_deleting(await client.get(CONFIG_MAP, "settings", "default"))
    await client.patch(CONFIG_MAP, "settings", {"metadata": {"finalizers": None}}, "default")
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAP, "settings", "default")


async def test_a_node_is_registered_with_its_status(client: Client) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}, "status": {"addresses": []}}
    await client.create(node)
    assert status(await client.get(NODE, "a")) == {"addresses": []}


async def test_a_watch_tells_every_change_since_a_version_in_order(client: Client) -> None:
    since = (await client.list(CONFIG_MAP)).resource_version
    created = await client.create(config_map(a="1"))
    await client.patch(CONFIG_MAP, "settings", {"data": {"a": "2"}}, "default")
    await client.delete(CONFIG_MAP, "settings", "default")
    story = [("ADDED", "settings"), ("MODIFIED", "settings"), ("DELETED", "settings")]
    assert await watched(client, 3, since) == story
    assert await watched(client, 2, resource_version(created)) == story[1:]


async def test_a_watch_waits_for_what_comes(client: Client) -> None:
    since = (await client.list(CONFIG_MAP)).resource_version
    coming = asyncio.create_task(watched(client, 1, since))
    await asyncio.wait([coming], timeout=0.05)
    assert not coming.done()
    await client.create(config_map())
    assert await coming == [("ADDED", "settings")]


async def test_an_object_that_is_no_longer_selected_is_deleted_for_that_watch(client: Client) -> None:
    since = (await client.list(CONFIG_MAP)).resource_version
    await client.create(config_map())
    await client.patch(CONFIG_MAP, "settings", {"metadata": {"labels": {"app": "other"}}}, "default")
    await client.patch(CONFIG_MAP, "settings", {"metadata": {"labels": {"app": "settings"}}}, "default")
    assert await watched(client, 3, since, "app=settings") == [
        ("ADDED", "settings"),
        ("DELETED", "settings"),
        ("ADDED", "settings"),
    ]


async def test_a_deletion_that_is_not_of_the_background_leaves_its_wish_as_a_finalizer(client: Client) -> None:
    for propagation, finalizer in (("Orphan", "orphan"), ("Foreground", "foregroundDeletion")):
        await client.create(config_map())
        await client.delete(CONFIG_MAP, "settings", "default", propagation=propagation)
        going = await client.get(CONFIG_MAP, "settings", "default")
        assert is_deleting(going)
        assert going["metadata"]["finalizers"] == [finalizer]
        await client.patch(CONFIG_MAP, "settings", {"metadata": {"finalizers": None}}, "default")


async def test_a_deletion_is_told_with_a_version_of_its_own(client: Client) -> None:
    created = await client.create(config_map())
    await client.delete(CONFIG_MAP, "settings", "default")
    async with asyncio.timeout(5):
        events = client.watch(CONFIG_MAP, since=resource_version(created), label_selector="app=settings")
        async with aclosing(events) as following:  # type: ignore[type-var]
            event = await anext(following)
    assert event.type == "DELETED"
    assert resource_version(event.object) > resource_version(created)


async def test_a_namespace_lives_outside_of_namespaces(client: Client) -> None:
    await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "blue"}})
    assert name(await client.get(NAMESPACE, "blue")) == "blue"
