"""Deletion: at once, in two phases, of a whole namespace."""

from pathlib import Path

import pytest

from testbed.api.kinds import CONFIG_MAP, DEPLOYMENT, NAMESPACE, POD
from testbed.api.objects import Key, name
from testbed.apiserver.deletion import DeleteOptions
from testbed.apiserver.resources import Resources
from testbed.errors import Forbidden, Invalid, NotFound
from tests.unit.apiserver.parts import (
    config_map,
    created,
    deployment,
    namespace,
    opened,
    pod,
    with_metadata,
)

WEB = Key("default", "web")


async def test_deleting_a_namespace_deletes_what_it_holds_and_then_itself(resources: Resources) -> None:
    await created(resources, namespace("blue"))
    await created(resources, config_map("a", "blue"))
    bound = pod(nodeName="n")
    bound["metadata"]["namespace"] = "blue"
    await created(resources, bound)
    _, is_gone = await resources.delete(NAMESPACE, Key("", "blue"), DeleteOptions())
    assert not is_gone
    assert resources.get(NAMESPACE, Key("", "blue")).document["status"]["phase"] == "Terminating"
    assert not resources.list(CONFIG_MAP, "blue").records
    with pytest.raises(Forbidden, match="because it is being terminated"):
        await created(resources, config_map("b", "blue"))
    await resources.delete(POD, Key("blue", "web"), DeleteOptions(grace_period_s=0))
    assert [name(record.document) for record in resources.list(NAMESPACE).records] == ["default"]


async def test_an_empty_namespace_goes_at_once_and_a_permanent_one_never(resources: Resources) -> None:
    await created(resources, namespace("blue"))
    _, is_gone = await resources.delete(NAMESPACE, Key("", "blue"), DeleteOptions())
    assert is_gone
    with pytest.raises(Forbidden, match="this namespace may not be deleted"):
        await resources.delete(NAMESPACE, Key("", "default"), DeleteOptions())


async def test_the_deletion_of_a_namespace_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as resources:
        await created(resources, namespace("blue"))
        held = config_map("a", "blue")
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await created(resources, held)
        await resources.delete(NAMESPACE, Key("", "blue"), DeleteOptions())
    async with opened(tmp_path) as resources:
        await resources.resume()
        await resources.patch(CONFIG_MAP, Key("blue", "a"), {"metadata": {"finalizers": None}})
        with pytest.raises(NotFound):
            resources.get(NAMESPACE, Key("", "blue"))


async def test_nothing_may_newly_hold_what_is_being_deleted(resources: Resources) -> None:
    await created(resources, with_metadata(finalizers=["example.com/hold"]))
    await resources.delete(CONFIG_MAP, Key("default", "a"), DeleteOptions())
    patch = {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}
    with pytest.raises(Invalid, match="no new finalizers can be added"):
        await resources.patch(CONFIG_MAP, Key("default", "a"), patch)


async def test_a_foreground_deletion_waits_for_the_garbage_collector(resources: Resources) -> None:
    await created(resources, deployment())
    which = Key("default", "web")
    _, is_gone = await resources.delete(DEPLOYMENT, which, DeleteOptions(propagation="Foreground"))
    assert not is_gone
    assert resources.get(DEPLOYMENT, which).document["metadata"]["finalizers"] == ["foregroundDeletion"]
    await resources.patch(DEPLOYMENT, which, {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        resources.get(DEPLOYMENT, which)


async def test_a_namespace_is_held_by_what_it_holds_whatever_its_spec_says(resources: Resources) -> None:
    await created(resources, namespace("blue") | {"spec": {"finalizers": []}})
    await created(resources, pod(nodeName="a") | {"metadata": {"name": "web", "namespace": "blue"}})
    which = Key("", "blue")
    await resources.patch(NAMESPACE, which, {"metadata": {"finalizers": ["example.com/hold"]}})
    await resources.delete(NAMESPACE, which, DeleteOptions())
    await resources.patch(NAMESPACE, which, {"spec": {"finalizers": []}})
    assert resources.get(NAMESPACE, which).document["spec"] == {"finalizers": ["kubernetes"]}
    await resources.delete(POD, Key("blue", "web"), DeleteOptions(grace_period_s=0))
    assert resources.get(NAMESPACE, which).document["spec"] == {"finalizers": []}
    await resources.update(NAMESPACE, which, namespace("blue"))
    with pytest.raises(NotFound):
        resources.get(NAMESPACE, which)


async def test_a_pod_that_may_take_for_ever_can_be_deleted(resources: Resources) -> None:
    await created(resources, pod(nodeName="a", terminationGracePeriodSeconds=1 << 62))
    going, is_gone = await resources.delete(POD, WEB, DeleteOptions())
    assert not is_gone
    assert going.document["metadata"]["deletionGracePeriodSeconds"] > 10**8


async def test_a_deletion_that_is_under_way_is_not_held_by_another_wish(resources: Resources) -> None:
    await created(resources, pod(nodeName="a"))
    await resources.delete(POD, WEB, DeleteOptions())
    _, is_gone = await resources.delete(POD, WEB, DeleteOptions(grace_period_s=0, propagation="Foreground"))
    assert is_gone
