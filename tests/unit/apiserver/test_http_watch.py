"""Watches on the wire, over a real uvicorn on a Unix socket."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from testbed.api.kinds import CONFIG_MAP
from tests.unit.apiserver.parts import Wire, config_map, namespace, served, status

MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Wire]:
    async with served(tmp_path, window=16) as wire:
        yield wire


async def test_a_watch_tells_changes_from_a_version_on(api: Wire) -> None:
    version = (await api.call("GET", MAPS)).json()["metadata"]["resourceVersion"]
    await api.call("POST", MAPS, config_map("a"))
    await api.call("PATCH", f"{MAPS}/a", {"data": {"x": "1"}}, media_type=MERGE)
    await api.call("DELETE", f"{MAPS}/a")
    async with asyncio.timeout(5):
        events = await api.lines(MAPS, 3, resourceVersion=version)
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(versions)
    assert {(event["object"]["apiVersion"], event["object"]["kind"]) for event in events} == {("v1", "ConfigMap")}


async def test_a_watch_from_no_version_begins_with_what_there_is(api: Wire) -> None:
    await api.call("POST", MAPS, config_map("a"))
    async with asyncio.timeout(5):
        (event,) = await api.lines(MAPS, 1)
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")


async def test_a_watch_list_ends_its_beginning_with_a_bookmark(api: Wire) -> None:
    last = (await api.call("POST", MAPS, config_map("a"))).json()
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    async with asyncio.timeout(5):
        added, bookmark = await api.lines(MAPS, 2, **query)
    assert added["type"] == "ADDED"
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["kind"] == "ConfigMap"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert bookmark["object"]["metadata"]["resourceVersion"] == last["metadata"]["resourceVersion"]
    refused = status(await api.call("GET", MAPS, watch="1", sendInitialEvents="true"))
    assert (refused["code"], refused["reason"]) == (422, "Invalid")


async def test_a_silent_watch_that_asks_for_it_gets_bookmarks_as_the_version_moves(tmp_path: Path) -> None:
    async with served(tmp_path, bookmark_s=0.05) as api:
        version = (await api.call("GET", MAPS)).json()["metadata"]["resourceVersion"]
        query = {"resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": "5"}
        watching = asyncio.create_task(api.lines(MAPS, 2, **query))
        await asyncio.wait([watching], timeout=0.2)
        assert not watching.done(), "nothing has moved"
        for name in ("blue", "green"):
            made = await api.call("POST", "/api/v1/namespaces", namespace(name))
            await asyncio.wait([watching], timeout=0.2)
        events = await watching
    assert [event["type"] for event in events] == ["BOOKMARK", "BOOKMARK"]
    assert events[-1]["object"]["metadata"]["resourceVersion"] == made.json()["metadata"]["resourceVersion"]


async def test_a_watch_ends_at_its_timeout(api: Wire) -> None:
    async with asyncio.timeout(3):
        assert await api.lines(MAPS, 1, timeoutSeconds="1") == []


async def test_a_refused_watch_leaves_nothing_behind(api: Wire) -> None:
    refused = status(await api.call("GET", MAPS, watch="true", timeoutSeconds="soon"))
    assert refused["reason"] == "BadRequest"
    assert not api.resources.store._histories[CONFIG_MAP].watches


async def test_a_watch_from_a_forgotten_version_is_gone_and_from_a_future_one_refused(api: Wire) -> None:
    version = (await api.call("POST", MAPS, config_map("a"))).json()["metadata"]["resourceVersion"]
    for number in range(200):
        await api.call("PATCH", f"{MAPS}/a", {"data": {"n": str(number)}}, media_type=MERGE)
    gone = status(await api.call("GET", MAPS, watch="1", resourceVersion=version))
    assert (gone["code"], gone["reason"]) == (410, "Expired")
    future = status(await api.call("GET", MAPS, watch="1", resourceVersion="99999"))
    assert (future["code"], future["reason"]) == (504, "Timeout")
    assert future["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert status(await api.call("GET", MAPS, resourceVersion="99999"))["code"] == 504


async def test_a_watcher_that_does_not_read_holds_up_nobody(api: Wire) -> None:
    deaf = api.http.stream("GET", MAPS, params={"watch": "1"})
    async with deaf as response:
        assert response.status_code == 200
        for number in range(100):
            assert (await api.call("POST", MAPS, config_map(f"c{number}", fill="x" * 100_000))).status_code == 201
