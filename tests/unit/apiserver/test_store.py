import asyncio
import resource
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.api.kinds import CONFIG_MAP, NODE
from testbed.api.objects import Key, Object
from testbed.apiserver.journal import Journal, StoreUnwritable
from testbed.apiserver.records import ADDED, DELETED, MODIFIED, Record
from testbed.apiserver.store import Store
from testbed.errors import AlreadyExists, Conflict, Gone, NotFound, ServerTimeout, TestbedError
from tests.unit.apiserver.parts import config_map

A = Key("default", "a")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store.open(tmp_path / "store.db", window=4)
    yield store
    store.close()


def changed(store: Store, which: Key, **data: str) -> Object:
    record = store.get(CONFIG_MAP, which)
    assert record is not None
    return {**record.copy(), "data": data}


def node(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_versions_grow_over_all_kinds(store: Store) -> None:
    versions = [
        store.create(CONFIG_MAP, config_map("a")).version,
        store.create(NODE, node("n")).version,
        store.update(CONFIG_MAP, changed(store, A, x="1")).version,
        store.delete(NODE, Key("", "n")).version,
    ]
    assert versions == sorted(set(versions))
    assert store.version == versions[-1]


async def test_a_name_is_taken_once_and_free_again_after_its_removal(store: Store) -> None:
    store.create(CONFIG_MAP, config_map("a"))
    with pytest.raises(AlreadyExists, match='configmaps "a" already exists'):
        store.create(CONFIG_MAP, config_map("a"))
    store.delete(CONFIG_MAP, A)
    store.create(CONFIG_MAP, config_map("a"))


async def test_an_update_must_be_made_from_the_newest_version(store: Store) -> None:
    old = store.create(CONFIG_MAP, config_map("a")).copy()
    store.update(CONFIG_MAP, changed(store, A, x="1"))
    with pytest.raises(Conflict, match="the object has been modified"):
        store.update(CONFIG_MAP, old)


async def test_what_does_not_exist_is_neither_updated_nor_deleted(store: Store) -> None:
    with pytest.raises(NotFound):
        store.update(CONFIG_MAP, config_map("a"))
    with pytest.raises(NotFound):
        store.delete(CONFIG_MAP, A)


async def test_lists_are_by_namespace_and_name(store: Store) -> None:
    for space, name in (("b", "a"), ("a", "z"), ("a", "b")):
        store.create(CONFIG_MAP, config_map(name, space))
    assert [record.document["metadata"]["name"] for record in store.list(CONFIG_MAP)] == ["b", "z", "a"]
    assert [record.document["metadata"]["name"] for record in store.list(CONFIG_MAP, "a")] == ["b", "z"]


async def test_concurrent_writes_share_one_transaction(store: Store) -> None:
    async def write(number: int) -> None:
        store.create(CONFIG_MAP, config_map(f"c{number}"))
        await store.committed()

    await asyncio.gather(*(write(number) for number in range(50)))
    assert len(store.list(CONFIG_MAP)) == 50


async def test_a_restart_finds_objects_versions_and_history(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store.db")
    first = store.create(CONFIG_MAP, config_map("a")).version
    store.update(CONFIG_MAP, changed(store, A, x="1"))
    store.create(CONFIG_MAP, config_map("b"))
    store.delete(CONFIG_MAP, Key("default", "b"))
    version = store.version
    store.close()

    again = Store.open(tmp_path / "store.db")
    assert again.version == version
    found = again.get(CONFIG_MAP, A)
    assert found is not None
    assert found.document["data"] == {"x": "1"}
    assert again.get(CONFIG_MAP, Key("default", "b")) is None
    events = await again.watch(CONFIG_MAP, first).next()
    assert [event_type for event_type, _ in events] == [MODIFIED, ADDED, DELETED]
    assert events[-1][1].document["metadata"]["resourceVersion"] == str(version)
    again.close()


async def test_a_watch_from_a_version_that_left_the_window_is_gone_also_after_a_restart(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store.db", window=4)
    start = store.create(CONFIG_MAP, config_map("a")).version
    for number in range(200):
        store.update(CONFIG_MAP, changed(store, A, x=str(number)))
        store.settle()
    with pytest.raises(Gone, match="too old resource version"):
        store.watch(CONFIG_MAP, start)
    recent = store.version - 2
    store.close()

    again = Store.open(tmp_path / "store.db", window=4)
    with pytest.raises(Gone):
        again.watch(CONFIG_MAP, start)
    assert [event for event, _ in await again.watch(CONFIG_MAP, recent).next()] == [MODIFIED, MODIFIED]
    again.close()


async def test_only_the_window_is_kept_on_disk(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store.db", window=4)
    store.create(CONFIG_MAP, config_map("a"))
    for number in range(1000):
        store.update(CONFIG_MAP, changed(store, A, x=str(number)))
        store.settle()
    store.close()
    (rows,) = sqlite3.connect(tmp_path / "store.db").execute("SELECT count(*) FROM log").fetchone()
    assert rows < 300


async def test_the_events_of_one_kind_do_not_age_another(store: Store) -> None:
    since = store.create(NODE, node("n")).version
    store.create(CONFIG_MAP, config_map("a"))
    for number in range(500):
        store.update(CONFIG_MAP, changed(store, A, x=str(number)))
        store.settle()
    store.delete(NODE, Key("", "n"))
    assert [event for event, _ in await store.watch(NODE, since).next()] == [DELETED]


async def test_a_version_that_is_yet_to_come_cannot_be_watched(store: Store) -> None:
    with pytest.raises(ServerTimeout, match="Too large resource version: 99"):
        store.watch(CONFIG_MAP, 99)


async def test_a_list_can_be_had_as_it_was(store: Store) -> None:
    store.create(CONFIG_MAP, config_map("a", x="1"))
    version = store.create(CONFIG_MAP, config_map("b")).version
    store.update(CONFIG_MAP, changed(store, A, x="2"))
    store.delete(CONFIG_MAP, Key("default", "b"))
    store.create(CONFIG_MAP, config_map("c"))
    store.settle()
    then = [(r.document["metadata"]["name"], r.document["data"]) for r in store.list_at(CONFIG_MAP, version)]
    assert then == [("a", {"x": "1"}), ("b", {})]


async def test_only_what_is_there_keeps_its_document_in_memory(store: Store) -> None:
    first = store.create(CONFIG_MAP, config_map("a", x="1"))
    second = store.update(CONFIG_MAP, changed(store, A, x="2"))
    store.settle()
    assert first.document == first.document
    assert first.document is not first.document
    assert second.document is second.document
    gone = store.delete(CONFIG_MAP, A)
    store.settle()
    assert gone.document is not gone.document


async def test_a_full_disk_takes_back_what_was_staged_and_says_so(store: Store) -> None:
    kept = store.create(CONFIG_MAP, config_map("kept")).version
    store.settle()
    watch = store.watch(CONFIG_MAP, store.version)
    with full_disk():
        store.create(CONFIG_MAP, config_map("a"))
        store.update(CONFIG_MAP, changed(store, Key("default", "kept"), x="1"))
        store.delete(CONFIG_MAP, Key("default", "a"))
        with pytest.raises(StoreUnwritable, match=r"store\.db cannot be written: .*nothing of this request was kept"):
            await store.committed()
    assert store.version == kept
    found = store.get(CONFIG_MAP, Key("default", "kept"))
    assert found is not None
    assert found.document["data"] == {}
    assert store.get(CONFIG_MAP, A) is None
    store.create(CONFIG_MAP, config_map("later"))
    await store.committed()
    assert [record.document["metadata"]["name"] for _, record in await watch.next()] == ["later"]


async def test_whoever_follows_is_told_at_once_and_again_of_what_is_taken_back(store: Store) -> None:
    store.create(CONFIG_MAP, config_map("kept"))
    store.settle()
    held: dict[str, str] = {"kept": ""}

    def follow(old: Record | None, new: Record | None) -> None:
        if old is not None:
            assert held.pop(old.document["metadata"]["name"]) == old.document["data"].get("x", "")
        if new is not None:
            held[new.document["metadata"]["name"]] = new.document["data"].get("x", "")

    store.follow(CONFIG_MAP, follow)
    store.create(CONFIG_MAP, config_map("a", x="1"))
    assert held == {"kept": "", "a": "1"}
    store.settle()
    with full_disk():
        store.update(CONFIG_MAP, changed(store, Key("default", "kept"), x="2"))
        store.delete(CONFIG_MAP, A)
        store.create(CONFIG_MAP, config_map("a", x="3"))
        assert held == {"kept": "2", "a": "3"}
        store.settle()
    assert held == {"kept": "", "a": "1"}


async def test_a_reader_never_sees_what_is_then_taken_back(store: Store) -> None:
    with full_disk():
        store.create(CONFIG_MAP, config_map("a"))
        store.settle()
        assert store.list(CONFIG_MAP) == []


async def test_one_process_at_a_time_has_the_store(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "store.db")
    with pytest.raises(TestbedError, match="in use by another control plane"):
        Journal(tmp_path / "store.db")
    journal.close()
    Journal(tmp_path / "store.db").close()


@pytest.mark.parametrize(
    "damage", [b"not a database at all, but some text that is long enough" * 9, b"SQLite format 3\0" * 300]
)
async def test_a_damaged_file_is_told_with_the_way_out(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "store.db").write_bytes(damage)
    with pytest.raises(TestbedError, match=r"cannot be read.*bring the cluster down and up again"):
        Store.open(tmp_path / "store.db").close()


async def test_a_damaged_object_is_told_with_the_way_out(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store.db")
    store.create(CONFIG_MAP, config_map("a"))
    store.close()
    with sqlite3.connect(tmp_path / "store.db") as database:
        database.execute("UPDATE log SET body = x'00'")
    database.close()
    with pytest.raises(TestbedError, match="cannot be read"):
        Store.open(tmp_path / "store.db").close()


async def test_a_file_of_another_format_is_told(tmp_path: Path) -> None:
    Journal(tmp_path / "store.db").close()
    with sqlite3.connect(tmp_path / "store.db") as database:
        database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(TestbedError, match="has format 7"):
        Journal(tmp_path / "store.db")
