"""Watches on the wire: one JSON document a line, for as long as the client listens (KEP-365, KEP-956, KEP-3157)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import orjson

from testbed.api.kinds import Kind
from testbed.apiserver.exchange import JSON, Receive, Request, Send
from testbed.apiserver.history import Watch
from testbed.apiserver.lists import bad_options
from testbed.apiserver.records import ADDED, BOOKMARK, Record
from testbed.apiserver.refusals import forbidden_field
from testbed.apiserver.resources import Resources
from testbed.apiserver.routes import Target
from testbed.apiserver.selection import selection
from testbed.errors import Gone

BOOKMARK_S = 30.0
"""Between two bookmarks of a silent watch."""
LONGEST_S = 24 * 3600
"""A watch ends after this, whatever timeout it names."""
INITIAL_EVENTS_END = {"k8s.io/initial-events-end": "true"}


@dataclass(frozen=True)
class WatchStream:
    """An open watch and how it is told. Made before the response begins, so that refusals are plain responses."""

    resources: Resources
    kind: Kind
    watch: Watch
    initial: tuple[Record, ...]
    ends_initial: bool
    has_bookmarks: bool
    timeout_s: int
    bookmark_s: float
    receive: Receive

    @classmethod
    def open(
        cls, resources: Resources, target: Target, request: Request, *, bookmark_s: float = BOOKMARK_S
    ) -> WatchStream:
        """What the request's parameters ask for. Gone, ServerTimeout, BadRequest, Invalid."""
        query = request.query
        selects = selection(target.kind, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        since = request.number("resourceVersion") or 0
        resources.store.require_reached(since)
        sends_initial = _sends_initial(request)
        initial: tuple[Record, ...] = ()
        if sends_initial or (since == 0 and "sendInitialEvents" not in query):
            page = resources.list(target.kind, target.namespace, selects)
            initial, since = tuple(page.records), page.version
        elif since == 0:
            since = resources.store.version
        has_bookmarks = request.flag("allowWatchBookmarks")
        timeout_s = min(request.number("timeoutSeconds") or LONGEST_S, LONGEST_S)
        return cls(  # after all that may be refused: a watch that nobody sends would stay in the history for ever
            resources,
            target.kind,
            resources.watch(target.kind, since, target.namespace, selects),
            initial,
            sends_initial and has_bookmarks,
            has_bookmarks,
            timeout_s,
            bookmark_s,
            request.receive,
        )

    async def send(self, send: Send) -> None:
        """Write events as they come, until the client leaves, time is up or the server ends."""
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(self.timeout_s, self.watch.close)
        listener = loop.create_task(self._close_when_left())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", JSON)]})
            async for lines in self._lines():
                await send({"type": "http.response.body", "body": lines, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            alarm.cancel()
            listener.cancel()
            self.watch.close()

    async def _lines(self) -> AsyncIterator[bytes]:
        begin = b"".join(_line(ADDED, record.raw) for record in self.initial)
        if self.ends_initial:
            begin += self._bookmark(self.watch.version, INITIAL_EVENTS_END)
        yield begin  # also when empty: the client sees that the watch has begun
        told = self.watch.version
        while True:
            try:
                events = await self._next()
            except Gone as error:
                yield _line("ERROR", orjson.dumps(error.status()))
                return
            if events:
                yield b"".join([_line(event_type, record.raw) for event_type, record in events])
                told = self.watch.version
            elif events is None:
                self.resources.store.settle()
                if self.watch.is_caught_up and told < self.resources.store.version:
                    told = self.resources.store.version
                    yield self._bookmark(told)
            else:
                return

    async def _next(self) -> list[tuple[str, Record]] | None:
        """The next events; None when it is time for a bookmark."""
        if not self.has_bookmarks:
            return await self.watch.next()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.bookmark_s):
                return await self.watch.next()
        return None

    async def _close_when_left(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.watch.close()

    def _bookmark(self, version: int, annotations: dict[str, str] | None = None) -> bytes:
        meta: dict[str, object] = {"resourceVersion": str(version), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        shell = {"kind": self.kind.kind, "apiVersion": self.kind.api_version, "metadata": meta}
        return _line(BOOKMARK, orjson.dumps(shell))


def _sends_initial(request: Request) -> bool:
    """Whether the client asks for the state as events (KEP-3157), which it must do unambiguously."""
    query = request.query
    if "sendInitialEvents" in query and query.get("resourceVersionMatch") != "NotOlderThan":
        detail = "resourceVersionMatch must be NotOlderThan when sendInitialEvents is set"
        raise bad_options(forbidden_field("resourceVersionMatch", detail))
    if "resourceVersionMatch" in query and "sendInitialEvents" not in query:
        detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        raise bad_options(forbidden_field("resourceVersionMatch", detail))
    return request.flag("sendInitialEvents")


def _line(event_type: str, raw: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (event_type.encode(), raw)
