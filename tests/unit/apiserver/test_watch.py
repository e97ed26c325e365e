import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from testbed.api.kinds import CONFIG_MAP
from testbed.api.objects import Key, Object
from testbed.api.selectors import label_selector
from testbed.apiserver.history import Watch
from testbed.apiserver.store import Store
from testbed.errors import Gone
from tests.unit.apiserver.parts import config_map

A = Key("default", "a")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store.open(tmp_path / "store.db", window=8)
    yield store
    store.close()


def labelled(store: Store, **labels: str) -> Object:
    record = store.get(CONFIG_MAP, A)
    obj = record.copy() if record else config_map("a")
    obj["metadata"]["labels"] = labels
    return obj


async def events(watch: Watch) -> list[tuple[str, str]]:
    async with asyncio.timeout(2):
        return [(event, record.document["metadata"]["resourceVersion"]) for event, record in await watch.next()]


async def test_a_watch_waits_for_the_next_change(store: Store) -> None:
    watch = store.watch(CONFIG_MAP, store.version)
    waiting = asyncio.create_task(events(watch))
    await asyncio.wait([waiting], timeout=0.01)
    assert not waiting.done()
    version = store.create(CONFIG_MAP, config_map("a")).version
    assert await waiting == [("ADDED", str(version))]


async def test_a_watch_is_told_of_a_write_only_once_it_is_committed(store: Store) -> None:
    watch = store.watch(CONFIG_MAP, store.version)
    store.create(CONFIG_MAP, config_map("a"))
    assert watch.is_caught_up
    store.settle()
    assert not watch.is_caught_up


async def test_other_namespaces_and_kinds_are_not_told(store: Store) -> None:
    watch = store.watch(CONFIG_MAP, store.version, "default")
    store.create(CONFIG_MAP, config_map("a", "elsewhere"))
    version = store.create(CONFIG_MAP, config_map("a")).version
    store.settle()
    assert await events(watch) == [("ADDED", str(version))]


async def test_entering_and_leaving_a_selector_is_an_addition_and_a_deletion(store: Store) -> None:
    watch = store.watch(CONFIG_MAP, store.version, selects=label_selector("app=web"))
    store.create(CONFIG_MAP, labelled(store, app="other"))
    versions = [store.update(CONFIG_MAP, labelled(store, app="web")).version]
    versions.append(store.update(CONFIG_MAP, labelled(store, app="web", tier="2")).version)
    versions.append(store.update(CONFIG_MAP, labelled(store, app="other", tier="2")).version)
    store.delete(CONFIG_MAP, A)
    store.settle()
    told = [(name, str(version)) for name, version in zip(("ADDED", "MODIFIED", "DELETED"), versions, strict=True)]
    assert await events(watch) == told


async def test_what_leaves_a_selector_is_shown_as_it_was(store: Store) -> None:
    store.create(CONFIG_MAP, labelled(store, app="web"))
    watch = store.watch(CONFIG_MAP, store.version, selects=label_selector("app=web"))
    store.update(CONFIG_MAP, labelled(store, app="other"))
    store.settle()
    ((_, record),) = await watch.next()
    assert record.document["metadata"]["labels"] == {"app": "web"}


async def test_a_watch_that_is_too_slow_is_gone_and_holds_up_nobody(store: Store) -> None:
    slow, quick = (store.watch(CONFIG_MAP, store.version) for _ in range(2))
    store.create(CONFIG_MAP, config_map("a"))
    for number in range(200):
        store.update(CONFIG_MAP, labelled(store, number=str(number)))
        store.settle()
        await events(quick)
    with pytest.raises(Gone):
        await slow.next()
    assert await slow.next() == []


async def test_an_idle_watch_does_not_age_by_changes_that_do_not_concern_it(store: Store) -> None:
    watch = store.watch(CONFIG_MAP, store.version, selects=label_selector("app=web"))
    waiting = asyncio.create_task(events(watch))
    await asyncio.wait([waiting], timeout=0.01)
    store.create(CONFIG_MAP, config_map("a"))
    for number in range(200):
        store.update(CONFIG_MAP, labelled(store, number=str(number)))
        store.settle()
    version = store.update(CONFIG_MAP, labelled(store, app="web")).version
    assert await waiting == [("ADDED", str(version))]


async def test_closing_the_store_ends_its_watches(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store.db")
    waiting = asyncio.create_task(events(store.watch(CONFIG_MAP, store.version)))
    await asyncio.wait([waiting], timeout=0.01)
    store.close()
    assert await waiting == []
