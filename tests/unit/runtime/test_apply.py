from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.api.kinds import CONFIG_MAP, DEPLOYMENT, POD, SERVICE, Kind, kind_of
from testbed.api.objects import Key, Object
from testbed.api.patch import merge_patch
from testbed.client.fake import FakeClient
from testbed.errors import BadInput, Invalid
from testbed.runtime.apply import UP, apply, prune, three_way
from testbed.topology.manifests import Manifest
from testbed.topology.source import Source


def manifest(obj: Object) -> Manifest:
    return Manifest(obj, kind_of(obj), Source("m.yaml", {("metadata",): 3, ("spec", "containers", 0, "image"): 7}))


def config(name: str, **data: Any) -> Manifest:
    return manifest({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})


def pod(name: str, image: str) -> Manifest:
    spec = {"containers": [{"name": "c", "image": image}]}
    return manifest({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


json = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("xyz"), json, max_size=3)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@given(objects, objects)
def test_what_was_applied_and_is_applied_again_differently_becomes_just_that(first: Object, second: Object) -> None:
    first, second = without_nulls(first), without_nulls(second)
    assert merge_patch(first, three_way(first, first, second)) == second


@given(objects, objects)
def test_applying_the_same_again_changes_nothing(live: Object, wanted: Object) -> None:
    live, wanted = without_nulls(live), without_nulls(wanted)
    now = merge_patch(live, three_way({}, live, wanted))
    assert three_way(wanted, now, wanted) == {}


def test_what_the_server_filled_in_is_left_alone() -> None:
    applied: Object = {"spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}}
    live = deepcopy(applied)
    live["spec"]["ports"][0]["protocol"] = "TCP"
    live["spec"]["clusterIP"] = "10.96.0.7"
    assert three_way(applied, live, applied) == {}


def test_a_field_that_is_no_longer_wanted_is_removed_also_from_within_a_list() -> None:
    applied = {"spec": {"a": 1, "ports": [{"port": 80, "name": "http"}]}}
    wanted = {"spec": {"ports": [{"port": 80}]}}
    assert three_way(applied, applied, wanted) == {"spec": {"a": None, "ports": [{"port": 80}]}}


async def actions(client: FakeClient, *manifests: Manifest) -> dict[str, str]:
    return {result.key.name: result.action for result in await apply(client, manifests, applied_by=UP)}


async def test_objects_are_created_then_left_alone_then_changed() -> None:
    client = FakeClient()
    assert await actions(client, config("a", x="1"), pod("p", "i")) == {"a": "created", "p": "created"}
    assert await actions(client, config("a", x="1"), pod("p", "i")) == {"a": "unchanged", "p": "unchanged"}
    assert await actions(client, config("a", y="2")) == {"a": "configured"}
    assert (await client.get(CONFIG_MAP, "a", "default"))["data"] == {"y": "2"}


async def test_a_pod_whose_spec_changed_is_replaced() -> None:
    client = FakeClient()
    await actions(client, pod("p", "old"))
    before = await client.get(POD, "p", "default")
    assert await actions(client, pod("p", "new")) == {"p": "replaced"}
    after = await client.get(POD, "p", "default")
    assert after["spec"]["containers"][0]["image"] == "new"
    assert after["metadata"]["uid"] != before["metadata"]["uid"]


async def test_what_up_no_longer_finds_in_the_manifests_is_deleted_and_nothing_else() -> None:
    client = FakeClient()
    await apply(client, [config("by-hand")])
    await apply(client, [config("stays"), config("goes")], applied_by=UP)
    kept = await apply(client, [config("stays")], applied_by=UP)
    assert [str(result) for result in await prune(client, kept)] == ["ConfigMap goes deleted"]
    assert {obj["metadata"]["name"] for obj in (await client.list(CONFIG_MAP)).items} == {"by-hand", "stays"}


async def test_what_the_server_finds_wrong_is_told_with_file_and_line() -> None:
    def refuse(verb: str, kind: Kind, key: Key) -> None:
        if kind == POD:
            causes = [{"field": "spec.containers[0].image", "message": "Required value"}]
            raise Invalid("Pod is invalid", details={"causes": causes})
        if kind == CONFIG_MAP:
            raise Invalid("no causes")

    with pytest.raises(BadInput) as raised:
        await apply(FakeClient(intercept=refuse), [pod("p", ""), config("a")])
    assert str(raised.value).splitlines() == [
        "m.yaml:7: spec.containers[0].image: Required value",
        "m.yaml:1: ConfigMap a: no causes",
    ]


async def test_a_list_of_manifests_goes_in_with_namespaces_first() -> None:
    order: list[str] = []
    client = FakeClient(intercept=lambda verb, kind, _: order.append(f"{verb} {kind.kind}"))
    space = manifest({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})
    await apply(client, [config("a"), space])
    assert order == ["create Namespace", "create ConfigMap"]


async def test_kinds_with_replicas_and_services_keep_their_own_fields() -> None:
    client = FakeClient()
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
    await apply(client, [manifest(service)])
    await client.patch(SERVICE, "s", {"spec": {"clusterIP": "10.96.0.7"}}, "default")
    changed = deepcopy(service)
    changed["spec"] = {"ports": [{"port": 81}]}
    await apply(client, [manifest(changed)])
    assert (await client.get(SERVICE, "s", "default"))["spec"] == {"ports": [{"port": 81}], "clusterIP": "10.96.0.7"}
    assert (await client.list(DEPLOYMENT)).items == []
