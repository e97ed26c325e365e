"""The wire format, over a real uvicorn on a Unix socket."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from testbed.api.kinds import KINDS
from tests.unit.apiserver.parts import Wire, config_map, deployment, pod, served, status

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MERGE = "application/merge-patch+json"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Wire]:
    async with served(tmp_path, window=16) as wire:
        yield wire


async def test_an_object_is_created_read_replaced_patched_and_deleted(api: Wire) -> None:
    created = await api.call("POST", MAPS, config_map("a", x="1"))
    assert created.status_code == 201
    assert created.headers["content-type"] == "application/json"
    obj = created.json()
    assert (await api.call("GET", f"{MAPS}/a")).json() == obj
    obj["data"] = {"x": "2"}
    replaced = await api.call("PUT", f"{MAPS}/a", obj)
    assert (replaced.status_code, replaced.json()["data"]) == (200, {"x": "2"})
    patched = await api.call("PATCH", f"{MAPS}/a", {"data": {"y": "3"}}, media_type=MERGE)
    assert patched.json()["data"] == {"x": "2", "y": "3"}
    deleted = await api.call("DELETE", f"{MAPS}/a")
    uid = obj["metadata"]["uid"]
    assert deleted.json()["status"] == "Success"
    assert deleted.json()["details"] == {"name": "a", "kind": "configmaps", "uid": uid}
    assert (await api.call("GET", f"{MAPS}/a")).status_code == 404


async def test_a_missing_object_is_not_found_in_kubernetes_words(api: Wire) -> None:
    found = status(await api.call("GET", f"{DEPLOYMENTS}/x"))
    assert found["reason"] == "NotFound"
    assert found["message"] == 'deployments.apps "x" not found'
    assert found["details"] == {"name": "x", "group": "apps", "kind": "deployments"}


async def test_a_taken_name_a_stale_write_and_a_wrong_uid_are_conflicts(api: Wire) -> None:
    first = (await api.call("POST", MAPS, config_map("a"))).json()
    assert status(await api.call("POST", MAPS, config_map("a")))["reason"] == "AlreadyExists"
    await api.call("PUT", f"{MAPS}/a", {**first, "data": {"x": "1"}})
    stale = status(await api.call("PUT", f"{MAPS}/a", {**first, "data": {"x": "2"}}))
    assert stale["reason"] == "Conflict"
    assert stale["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    wrong = await api.call("DELETE", f"{MAPS}/a", {"preconditions": {"uid": "other"}})
    assert status(wrong)["reason"] == "Conflict"


async def test_a_list_has_its_kind_version_and_items(api: Wire) -> None:
    await api.call("POST", MAPS, config_map("b"))
    last = (await api.call("POST", MAPS, config_map("a"))).json()
    listed = (await api.call("GET", "/api/v1/configmaps")).json()
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert listed["metadata"] == {"resourceVersion": last["metadata"]["resourceVersion"]}
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a", "b"]
    slices = (await api.call("GET", "/apis/discovery.k8s.io/v1/endpointslices")).json()
    assert (slices["kind"], slices["items"]) == ("EndpointSliceList", [])


async def test_pages_of_a_list_show_one_moment(api: Wire) -> None:
    for name in "abcde":
        await api.call("POST", MAPS, config_map(name, at="first"))
    first = (await api.call("GET", MAPS, limit="2")).json()
    assert first["metadata"]["remainingItemCount"] == 3
    await api.call("DELETE", f"{MAPS}/c")
    await api.call("PATCH", f"{MAPS}/d", {"data": {"at": "second"}}, media_type=MERGE)
    await api.call("POST", MAPS, config_map("cc"))
    second = (await api.call("GET", MAPS, **{"limit": "2", "continue": first["metadata"]["continue"]})).json()
    third = (await api.call("GET", MAPS, **{"limit": "2", "continue": second["metadata"]["continue"]})).json()
    items = [*first["items"], *second["items"], *third["items"]]
    assert [item["metadata"]["name"] for item in items] == list("abcde")
    assert {item["data"]["at"] for item in items} == {"first"}
    assert "continue" not in third["metadata"]
    assert {page["metadata"]["resourceVersion"] for page in (first, second, third)} == {
        first["metadata"]["resourceVersion"]
    }


async def test_a_page_whose_moment_is_forgotten_is_gone(api: Wire) -> None:
    for name in "abc":
        await api.call("POST", MAPS, config_map(name))
    first = (await api.call("GET", MAPS, limit="1")).json()
    for number in range(200):
        await api.call("PATCH", f"{MAPS}/a", {"data": {"n": str(number)}}, media_type=MERGE)
    gone = status(await api.call("GET", MAPS, **{"limit": "1", "continue": first["metadata"]["continue"]}))
    assert (gone["code"], gone["reason"]) == (410, "Expired")
    assert status(await api.call("GET", MAPS, **{"continue": "garbage"}))["code"] == 400


async def test_selectors_by_label_and_field(api: Wire) -> None:
    for name, tier in (("a", "1"), ("b", "2"), ("c", "3")):
        obj = config_map(name)
        obj["metadata"]["labels"] = {"tier": tier}
        await api.call("POST", MAPS, obj)

    async def names(**query: str) -> list[str]:
        listed = (await api.call("GET", MAPS, **query)).json()
        return [item["metadata"]["name"] for item in listed["items"]]

    assert await names(labelSelector="tier in (1,2)") == ["a", "b"]
    assert await names(labelSelector="tier!=1,tier") == ["b", "c"]
    assert await names(fieldSelector="metadata.name=b") == ["b"]
    assert await names(fieldSelector="metadata.name!=b", labelSelector="tier notin (1)") == ["c"]
    assert status(await api.call("GET", MAPS, labelSelector="a b"))["code"] == 400
    unknown = status(await api.call("GET", MAPS, fieldSelector="data.x=1"))
    assert unknown["message"].endswith("field label not supported: data.x")


async def test_pods_are_selected_by_their_node(api: Wire) -> None:
    await api.call("POST", PODS, pod("here", nodeName="a"))
    await api.call("POST", PODS, pod("there", nodeName="b"))
    listed = (await api.call("GET", "/api/v1/pods", fieldSelector="spec.nodeName=a,status.phase=Pending")).json()
    assert [item["metadata"]["name"] for item in listed["items"]] == ["here"]


async def test_a_collection_is_deleted_by_label(api: Wire) -> None:
    for name, labels in (("a", {"go": "yes"}), ("b", {"go": "yes"}), ("c", {})):
        obj = config_map(name)
        obj["metadata"]["labels"] = labels
        await api.call("POST", MAPS, obj)
    deleted = (await api.call("DELETE", MAPS, labelSelector="go=yes")).json()
    assert [item["metadata"]["name"] for item in deleted["items"]] == ["a", "b"]
    assert [item["metadata"]["name"] for item in (await api.call("GET", MAPS)).json()["items"]] == ["c"]


async def test_status_is_written_apart_from_the_rest(api: Wire) -> None:
    await api.call("POST", DEPLOYMENTS, deployment())
    await api.call(
        "PATCH", f"{DEPLOYMENTS}/web/status", {"status": {"replicas": 2}, "spec": {"replicas": 9}}, media_type=MERGE
    )
    await api.call(
        "PATCH", f"{DEPLOYMENTS}/web", {"status": {"replicas": 7}, "spec": {"replicas": 4}}, media_type=MERGE
    )
    found = (await api.call("GET", f"{DEPLOYMENTS}/web/status")).json()
    assert (found["spec"]["replicas"], found["status"]["replicas"]) == (4, 2)


async def test_scale_is_read_replaced_and_patched(api: Wire) -> None:
    await api.call("POST", DEPLOYMENTS, deployment())
    scale = (await api.call("GET", f"{DEPLOYMENTS}/web/scale")).json()
    assert (scale["apiVersion"], scale["kind"]) == ("autoscaling/v1", "Scale")
    assert scale["status"] == {"replicas": 0, "selector": "app=web"}
    scale["spec"]["replicas"] = 3
    assert (await api.call("PUT", f"{DEPLOYMENTS}/web/scale", scale)).json()["spec"] == {"replicas": 3}
    assert status(await api.call("PUT", f"{DEPLOYMENTS}/web/scale", scale))["reason"] == "Conflict"
    await api.call("PATCH", f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 5}}, media_type=MERGE)
    assert (await api.call("GET", f"{DEPLOYMENTS}/web")).json()["spec"]["replicas"] == 5
    negative = await api.call("PATCH", f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": -1}}, media_type=MERGE)
    assert status(negative)["code"] == 422


async def test_a_pod_is_bound_by_its_binding(api: Wire) -> None:
    await api.call("POST", PODS, pod())
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "web"},
        "target": {"kind": "Node", "name": "a"},
    }
    assert (await api.call("POST", f"{PODS}/web/binding", binding)).status_code == 201
    assert (await api.call("GET", f"{PODS}/web")).json()["spec"]["nodeName"] == "a"
    assert status(await api.call("POST", f"{PODS}/web/binding", binding))["reason"] == "Conflict"


async def test_a_binding_is_for_one_pod_that_is_to_run(api: Wire) -> None:
    held = pod()
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await api.call("POST", PODS, held)
    binding = {"metadata": {"name": "web", "uid": "another"}, "target": {"kind": "Node", "name": "a"}}
    assert "UID in precondition" in status(await api.call("POST", f"{PODS}/web/binding", binding))["message"]
    await api.call("DELETE", f"{PODS}/web")
    del binding["metadata"]["uid"]
    assert "is being deleted" in status(await api.call("POST", f"{PODS}/web/binding", binding))["message"]


async def test_a_bound_pod_is_deleted_in_two_phases(api: Wire) -> None:
    await api.call("POST", PODS, pod(nodeName="a", terminationGracePeriodSeconds=7))
    going = (await api.call("DELETE", f"{PODS}/web", {"kind": "DeleteOptions", "apiVersion": "v1"})).json()
    assert (going["kind"], going["metadata"]["deletionGracePeriodSeconds"]) == ("Pod", 7)
    gone = (await api.call("DELETE", f"{PODS}/web", gracePeriodSeconds="0")).json()
    assert (gone["kind"], gone["status"]) == ("Status", "Success")


async def test_discovery_names_every_kind_and_subresource(api: Wire) -> None:
    assert (await api.call("GET", "/api")).json()["versions"] == ["v1"]
    groups = (await api.call("GET", "/apis")).json()
    assert groups["kind"] == "APIGroupList"
    roots = ["/api/v1"] + [f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups["groups"]]
    found: dict[tuple[str, str], Any] = {}
    for root in roots:
        listed = (await api.call("GET", root)).json()
        assert listed["kind"] == "APIResourceList"
        found |= {(listed["groupVersion"], entry["name"]): entry for entry in listed["resources"]}
    for kind in KINDS:
        entry = found[kind.api_version, kind.plural]
        assert (entry["kind"], entry["namespaced"]) == (kind.kind, kind.namespaced)
        for subresource in kind.subresources:
            assert (kind.api_version, f"{kind.plural}/{subresource}") in found
    assert found["v1", "pods"]["shortNames"] == ["po"]
    assert found["apps/v1", "deployments/scale"]["kind"] == "Scale"
    group = (await api.call("GET", "/apis/apps")).json()
    assert (group["kind"], group["name"]) == ("APIGroup", "apps")


async def test_many_writes_at_once_are_all_kept_in_order(api: Wire) -> None:
    responses = await asyncio.gather(*(api.call("POST", MAPS, config_map(f"c{n}")) for n in range(64)))
    versions = [response.json()["metadata"]["resourceVersion"] for response in responses]
    assert len(set(versions)) == 64
    increments = [api.call("PATCH", f"{MAPS}/c0", {"data": {f"k{n}": "v"}}, media_type=MERGE) for n in range(32)]
    await asyncio.gather(*increments)
    assert len((await api.call("GET", f"{MAPS}/c0")).json()["data"]) == 32
