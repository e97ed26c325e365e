"""The recent changes of one kind, and the watches that read them.

A watch owns no queue: it is a position in the shared history. One that reads slowly costs nobody memory or time, and
one that falls out of the window is told so (410 Gone) and lists again, as with etcd's compaction.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable
from operator import attrgetter

from testbed.api.objects import Object
from testbed.apiserver.records import ADDED, DELETED, MODIFIED, Change, Record
from testbed.errors import Gone

Selects = Callable[[Object], bool]


class History:
    """Changes of one kind after version `floor`, at least the newest `window` of them."""

    def __init__(self, floor: int, window: int) -> None:
        self.floor = floor
        self.watches: set[Watch] = set()
        self._window = window
        self._at_once = max(1, window // 32)
        """Changes are let go in batches: each of them costs rows on disk."""
        self._changes: list[Change] = []
        self._gone = 0
        """How many changes have left: a position counts from the first change that ever came."""

    @property
    def end(self) -> int:
        """The position of the next change to come."""
        return self._gone + len(self._changes)

    def position_after(self, version: int) -> int:
        """The position of the first change after `version`; Gone where changes since then have left."""
        if version < self.floor:
            raise self.too_old(version)
        return self._gone + bisect_right(self._changes, version, key=attrgetter("version"))

    def after(self, position: int) -> list[Change] | None:
        """The changes from `position` on; None where some of them have left."""
        return self._changes[position - self._gone :] if position >= self._gone else None

    def undone(self, version: int) -> list[Change]:
        """The changes after `version`, newest first: undoing them gives the state as it was."""
        return self._changes[self.position_after(version) - self._gone :][::-1]

    def append(self, change: Change) -> None:
        """Take a change in and tell the watches."""
        self._changes.append(change)
        for watch in tuple(self.watches):
            watch.offer(change)

    def evict(self) -> list[Change]:
        """Let go of the oldest changes once there are enough too many of them; those that went."""
        if len(self._changes) < self._window + self._at_once:
            return []
        evicted = self._changes[: self._at_once]
        del self._changes[: self._at_once]
        self._gone += self._at_once
        self.floor = evicted[-1].version
        return evicted

    def too_old(self, version: int) -> Gone:
        """The refusal of a version before the floor."""
        return Gone(f"too old resource version: {version} ({self.floor})")


class Watch:
    """A position in a history, and which of its changes count.

    `namespace` empty: all. Iterating is `await next()` until it answers an empty list: the watch was closed.
    """

    def __init__(self, history: History, since: int, namespace: str = "", selects: Selects | None = None) -> None:
        self.version = since
        """Everything up to this version has been seen."""
        self._history = history
        self._position = history.position_after(since)
        self._namespace = namespace
        self._selects = selects
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        history.watches.add(self)

    @property
    def is_caught_up(self) -> bool:
        """Whether every change that has come was looked at."""
        return self._position == self._history.end

    async def next(self) -> list[tuple[str, Record]]:
        """The events since the last call, as type and object, waiting for one; Gone where the watch was too slow.

        An empty list says that the watch is closed.
        """
        while not self._is_closed:
            changes = self._history.after(self._position)
            if changes is None:
                self.close()
                raise self._history.too_old(self.version)
            self._position += len(changes)
            if changes:
                self.version = changes[-1].version
            if events := [event for change in changes if (event := self._event(change))]:
                return events
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return []

    def offer(self, change: Change) -> None:
        """A change has come: wake the reader if it waits and the change concerns it."""
        if self._waiter is None or self._waiter.done():
            return
        if self._event(change):
            self._waiter.set_result(None)
        else:
            self._position += 1
            self.version = change.version

    def close(self) -> None:
        """End the watch: whoever waits in `next` gets an empty list."""
        self._is_closed = True
        self._history.watches.discard(self)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _event(self, change: Change) -> tuple[str, Record] | None:
        if self._namespace and change.key.namespace != self._namespace:
            return None
        if self._selects is None:
            return change.type, change.new
        is_in = change.type != DELETED and self._selects(change.new.document)
        was_in = change.old is not None and self._selects(change.old.document)
        if is_in:
            return (MODIFIED if was_in else ADDED), change.new
        if not was_in:
            return None
        return DELETED, (change.new if change.type == DELETED else change.departed())
