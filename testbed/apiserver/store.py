"""The cluster's memory: every object under one growing resourceVersion, durable, and watched.

Reads come from memory. Writes are staged in memory at once, so that the next write of the same tick of the event loop
builds on them, and committed together at the tick's end, in one transaction. Nobody sees a write before its commit:
whoever made it awaits `committed()`, whoever reads calls `settle()` first, and watches are told afterwards. A commit
that fails takes back everything that was staged.

The store knows no rule about objects except versions; those are admission's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import orjson

from testbed.api.kinds import KINDS, Kind
from testbed.api.objects import Key, Object, key, resource_version
from testbed.apiserver import refusals
from testbed.apiserver.history import History, Selects, Watch
from testbed.apiserver.journal import Journal, Row, StoreUnwritable
from testbed.apiserver.records import ADDED, DELETED, MODIFIED, Change, Record, renumbered
from testbed.errors import ServerTimeout

WINDOW = 4096
"""Changes of each kind that a watch can resume from, at least."""


Follower = Callable[[Record | None, Record | None], None]
"""Told what an object was and is; None: it did not exist, or does not."""


class Store:
    """All objects. Lives in one event loop; every method but `committed` is synchronous and atomic."""

    def __init__(self, journal: Journal, *, window: int = WINDOW) -> None:
        self._journal = journal
        self._objects: dict[Kind, dict[str, dict[str, Record]]] = {kind: {} for kind in KINDS}
        self._followers: dict[Kind, list[Follower]] = {kind: [] for kind in KINDS}
        self._staged: list[Change] = []
        self._obsolete: list[int] = []
        self._batch: asyncio.Future[None] | None = None
        floors = journal.floors()
        self._histories = {kind: History(floors.get(kind.qualified, 0), window) for kind in KINDS}
        self.version = 1
        """The newest resourceVersion."""
        self._load()

    @classmethod
    def open(cls, path: Path, *, window: int = WINDOW) -> Store:
        """The store in the file at `path`, made where there is none."""
        return cls(Journal(path), window=window)

    def get(self, kind: Kind, which: Key) -> Record | None:
        """The newest version of an object, what is staged included."""
        return self._objects[kind].get(which.namespace, {}).get(which.name)

    def list(self, kind: Kind, namespace: str = "") -> Sequence[Record]:
        """All objects of a kind, in one namespace or in all, by namespace and name; what is staged included."""
        spaces = self._objects[kind]
        if namespace:
            return _by_name(spaces.get(namespace, {}))
        return [record for _, names in sorted(spaces.items()) for record in _by_name(names)]

    def list_at(self, kind: Kind, version: int, namespace: str = "") -> Sequence[Record]:
        """The list as it was at `version`, which must be settled; Gone where the history does not reach back."""
        found = {key(record.document): record for record in self.list(kind, namespace)}
        for change in self._histories[kind].undone(version):
            if namespace and change.key.namespace != namespace:
                continue
            if change.old is None:
                found.pop(change.key, None)
            else:
                found[change.key] = change.old
        return [record for _, record in sorted(found.items())]

    def kinds_in(self, namespace: str) -> Iterator[Kind]:
        """The kinds of which the namespace holds any object."""
        return (kind for kind, spaces in self._objects.items() if kind.namespaced and spaces.get(namespace))

    def create(self, kind: Kind, obj: Object) -> Record:
        """Stage a new object, which the store takes over. AlreadyExists."""
        which = key(obj)
        if self.get(kind, which):
            raise refusals.already_exists(kind, which.name)
        return self._stage(ADDED, kind, which, obj, None)

    def update(self, kind: Kind, obj: Object) -> Record:
        """Stage a new version, which the store takes over. NotFound; Conflict unless it was made from the newest."""
        which = key(obj)
        old = self.get(kind, which)
        if old is None:
            raise refusals.not_found(kind, which.name)
        if resource_version(obj) != old.version:
            raise refusals.conflict(kind, which.name)
        return self._stage(MODIFIED, kind, which, obj, old)

    def delete(self, kind: Kind, which: Key, last: Object | None = None) -> Record:
        """Stage a removal; the object's last state, as it was or as given, under the removal's version. NotFound."""
        old = self.get(kind, which)
        if old is None:
            raise refusals.not_found(kind, which.name)
        return self._stage(DELETED, kind, which, last or old.copy(), old)

    async def committed(self) -> None:
        """Return when everything staged so far is durable; StoreUnwritable where it was taken back."""
        if self._batch is not None:
            await asyncio.shield(self._batch)

    def settle(self) -> None:
        """Commit what is staged now, so that a read sees nothing that may still be taken back."""
        if self._staged:
            self._commit()

    def watch(self, kind: Kind, since: int, namespace: str = "", selects: Selects | None = None) -> Watch:
        """The changes after version `since`. Gone where that is no longer held, ServerTimeout where it is to come."""
        self.settle()
        self.require_reached(since)
        return Watch(self._histories[kind], since, namespace, selects)

    def require_reached(self, version: int) -> None:
        """Raise ServerTimeout where the store has not come to that version."""
        if version > self.version:
            cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            raise ServerTimeout(
                f"Too large resource version: {version}, current: {self.version}",
                details={"causes": [cause], "retryAfterSeconds": 1},
            )

    def follow(self, kind: Kind, follower: Follower) -> None:
        """Tell of every change of what `get` answers, from now on and at once: of a write when it is staged, and again
        if it is taken back."""
        self._followers[kind].append(follower)

    def close_watches(self) -> None:
        """End every watch."""
        for history in self._histories.values():
            for watch in tuple(history.watches):
                watch.close()

    def close(self) -> None:
        """Commit, end every watch, let go of the file."""
        self.settle()
        self.close_watches()
        self._journal.close()

    def _load(self) -> None:
        kinds = {kind.qualified: kind for kind in KINDS}
        try:
            for row in self._journal.rows():
                self._replay(kinds[row.kind], row)
        except (KeyError, orjson.JSONDecodeError) as error:
            raise self._journal.unreadable(error) from error

    def _replay(self, kind: Kind, row: Row) -> None:
        which = Key(row.namespace, row.name)
        old = self.get(kind, which)
        new = Record(row.body, row.version, orjson.loads(row.body))
        self._apply(change := Change(row.version, row.type, kind, which, new, old))
        if row.version > self._histories[kind].floor:
            self._histories[kind].append(change)
        if old is not None:
            old.supersede()
        self.version = row.version

    def _stage(self, event: str, kind: Kind, which: Key, obj: Object, old: Record | None) -> Record:
        new = renumbered(obj, self.version + 1)
        change = Change(new.version, event, kind, which, new, old)
        if self._batch is None:
            loop = asyncio.get_running_loop()
            self._batch = loop.create_future()
            loop.call_soon(self.settle)
        self.version = new.version
        self._apply(change)
        self._staged.append(change)
        return new

    def _apply(self, change: Change) -> None:
        names = self._objects[change.kind].setdefault(change.key.namespace, {})
        if change.type == DELETED:
            names.pop(change.key.name, None)
        else:
            names[change.key.name] = change.new
        self._tell(change.kind, change.old, None if change.type == DELETED else change.new)

    def _take_back(self, change: Change) -> None:
        names = self._objects[change.kind].setdefault(change.key.namespace, {})
        if change.old is None:
            del names[change.key.name]
        else:
            names[change.key.name] = change.old
        self._tell(change.kind, None if change.type == DELETED else change.new, change.old)

    def _tell(self, kind: Kind, old: Record | None, new: Record | None) -> None:
        for follower in self._followers[kind]:
            follower(old, new)

    def _commit(self) -> None:
        staged, batch = self._staged, self._batch
        self._staged, self._batch = [], None
        assert batch is not None, "staging opens a batch"
        floors = {kind.qualified: history.floor for kind, history in self._histories.items()} if self._obsolete else {}
        try:
            self._journal.append([_row(change) for change in staged], self._obsolete, floors)
        except StoreUnwritable as error:
            for change in reversed(staged):
                self._take_back(change)
            self.version = staged[0].version - 1
            batch.set_exception(error)
            batch.exception()  # a write that nobody awaits any more is no unhandled error
            return
        self._obsolete = []
        for change in staged:
            self._publish(change)
        batch.set_result(None)

    def _publish(self, change: Change) -> None:
        history = self._histories[change.kind]
        history.append(change)
        if change.old is not None:
            change.old.supersede()
        if change.type == DELETED:
            change.new.supersede()
        for evicted in history.evict():
            if evicted.old is not None:
                self._obsolete.append(evicted.old.version)
            if evicted.type == DELETED:
                self._obsolete.append(evicted.version)


def _row(change: Change) -> Row:
    return Row(
        change.version, change.type, change.kind.qualified, change.key.namespace, change.key.name, change.new.raw
    )


def _by_name(names: Mapping[str, Record]) -> list[Record]:
    return [names[name] for name in sorted(names)]
