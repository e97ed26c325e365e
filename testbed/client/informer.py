"""All objects of a kind, kept true: list once, watch from there, list again only when the server says Gone.

What is held is shared by everyone who reads it and must not be changed; copy an object before editing it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Generic, TypeVar

from testbed.api import selectors
from testbed.api.kinds import Kind
from testbed.api.objects import Event, Key, Object, key, namespace, resource_version
from testbed.client.protocol import Client
from testbed.errors import ApiError, Gone
from testbed.waiting import Backoff

log = logging.getLogger(__name__)

H = TypeVar("H", bound=Hashable)
Observer = Callable[[Key, Object | None, Object | None], None]
"""Told which object changed, as it was and as it is; None: did not, or does not, exist."""


class Informer:
    """A local copy of all objects of a kind, in one namespace or (empty) in all.

    `run()` feeds it until cancelled. Callbacks run in the loop's thread right after the copy has changed; they must be
    quick and must not raise. No change is missed: several changes of one object may be told as one.
    """

    def __init__(
        self, client: Client, kind: Kind, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> None:
        self.kind = kind
        self.synced = asyncio.Event()
        """Set once the first list is in `items`."""
        self.resource_version = 0
        """Everything up to this version is in `items`."""
        self._client, self._namespace = client, namespace
        self._label_selector, self._field_selector = label_selector, field_selector
        self._tests = (selectors.label_selector(label_selector), selectors.field_selector(field_selector))
        self._items: dict[Key, Object] = {}
        self._observers: list[Observer] = []

    @property
    def items(self) -> Mapping[Key, Object]:
        """The objects as last seen, a live read-only view."""
        return MappingProxyType(self._items)

    def on_change(self, callback: Callable[[Key], None]) -> None:
        """Call back with the key of every object that is added, changed or deleted, from now on."""
        self._observers.append(lambda key, _old, _new: callback(key))

    def observe(self, observer: Observer) -> None:
        """Like `on_change`, with the object before and after: what an index needs, or a selector that has moved."""
        self._observers.append(observer)

    def index(self, values: Callable[[Object], Iterable[H]]) -> Index[H]:
        """An index by any of the `values` of an object; must be asked for before `run`."""
        index = Index(values)
        self._observers.insert(0, index.update)  # before the callbacks, which read it
        return index

    def learn(self, obj: Object) -> None:
        """Take in what a write returned, ahead of the watch, so that the next reconcile already sees it.

        Versions grow over all kinds and a watch tells them in order: an object newer than `resource_version` is one
        that the watch has yet to tell, an older one it has already told, and perhaps deleted since.
        """
        if resource_version(obj) > self.resource_version and self._is_selected(obj):
            self._set(obj)

    async def run(self) -> None:
        """List and watch until cancelled. Errors of the API are tried again, at most 2 s apart; of several in a row the
        first is a warning."""
        backoff = Backoff()
        while True:
            try:
                if not self.resource_version:
                    await self._list()
                await self._watch(backoff)
            except Gone:
                log.info("%s: version %d is gone, listing again", self.kind.plural, self.resource_version)
                self.resource_version = 0
            except ApiError as error:
                log.log(logging.DEBUG if backoff.failures else logging.WARNING, "%s: %s", self.kind.plural, error)
            await backoff.wait()

    async def _list(self) -> None:
        listed = await self._client.list(
            self.kind, self._namespace, label_selector=self._label_selector, field_selector=self._field_selector
        )
        found = {key(obj): obj for obj in listed.items}
        for which in self._items.keys() - found.keys():
            self._drop(which, listed.resource_version)
        for obj in found.values():
            self._set(obj)
        self.resource_version = listed.resource_version
        self.synced.set()

    async def _watch(self, backoff: Backoff) -> None:
        events = self._client.watch(
            self.kind,
            self._namespace,
            since=self.resource_version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        async with aclosing(events) as following:  # type: ignore[type-var]  # each client's watch is a generator
            async for event in following:
                backoff.reset()
                self._apply(event)

    def _apply(self, event: Event) -> None:
        if event.type == "DELETED":
            self._drop(key(event.object), resource_version(event.object))
        elif event.type != "BOOKMARK":
            self._set(event.object)
        self.resource_version = max(self.resource_version, resource_version(event.object))

    def _is_selected(self, obj: Object) -> bool:
        is_here = not self._namespace or namespace(obj) == self._namespace
        return is_here and all(test(obj) for test in self._tests)

    def _set(self, obj: Object) -> None:
        which = key(obj)
        old = self._items.get(which)
        if old is not None and resource_version(old) >= resource_version(obj):
            return
        self._items[which] = obj
        self._tell(which, old, obj)

    def _drop(self, which: Key, version: int) -> None:
        old = self._items.get(which)
        if old is not None and resource_version(old) <= version:
            del self._items[which]
            self._tell(which, old, None)

    def _tell(self, which: Key, old: Object | None, new: Object | None) -> None:
        for observer in self._observers:
            observer(which, old, new)


class Index(Generic[H]):
    """Objects of an informer by a value that they have: pods by node, ReplicaSets by owner."""

    def __init__(self, values: Callable[[Object], Iterable[H]]) -> None:
        self._values = values
        self._objects: dict[H, dict[Key, Object]] = {}

    def __getitem__(self, value: H) -> Sequence[Object]:
        """The objects that have the value now; none is an answer too."""
        return list(self._objects.get(value, {}).values())

    def update(self, which: Key, old: Object | None, new: Object | None) -> None:
        """Follow one object from what it was to what it is."""
        for value in () if old is None else set(self._values(old)):
            held = self._objects[value]
            held.pop(which, None)
            if not held:
                del self._objects[value]
        if new is not None:
            for value in self._values(new):
                self._objects.setdefault(value, {})[which] = new
