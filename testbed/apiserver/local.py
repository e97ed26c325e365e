"""The client of controllers that live in the API server's process: the same verbs and rules, with no wire between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from testbed.api.kinds import Kind, kind_of
from testbed.api.objects import Event, Key, Object, ObjectList, key, namespace
from testbed.api.patch import merge_patch
from testbed.apiserver.deletion import DeleteOptions
from testbed.apiserver.records import ADDED
from testbed.apiserver.resources import Resources
from testbed.apiserver.selection import selection


class LocalClient:
    """`testbed.client.protocol.Client` over the store itself. Everything taken in and handed out is a copy."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def create(self, obj: Object) -> Object:
        """Through admission into the store."""
        return (await self._resources.create(kind_of(obj), namespace(obj), _copy(obj))).copy()

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Object:
        """The object, or its Scale."""
        if subresource == "scale":
            return await self._resources.scale(kind, Key(namespace, name))
        return self._resources.get(kind, Key(namespace, name)).copy()

    async def list(
        self, kind: Kind, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> ObjectList:
        """By namespace and name."""
        page = self._resources.list(kind, namespace, selection(kind, label_selector, field_selector))
        return ObjectList([record.copy() for record in page.records], page.version)

    async def update(self, obj: Object, *, subresource: str = "") -> Object:
        """Replace the object, or its status."""
        return (await self._resources.update(kind_of(obj), key(obj), _copy(obj), subresource)).copy()

    async def patch(
        self, kind: Kind, name: str, patch: Mapping[str, Any], namespace: str = "", *, subresource: str = ""
    ) -> Object:
        """Merge into the newest version."""
        which = Key(namespace, name)
        if subresource == "scale":
            return await self._resources.scale(kind, which, lambda held: merge_patch(held, patch))
        return (await self._resources.patch(kind, which, _copy(patch), subresource)).copy()

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        grace_period_s: int | None = None,
        propagation: str = "Background",
        uid: str = "",
    ) -> None:
        """Delete, in two phases where something holds the object."""
        await self._resources.delete(kind, Key(namespace, name), DeleteOptions(grace_period_s, propagation, uid))

    async def watch(
        self, kind: Kind, namespace: str = "", *, since: int, label_selector: str = "", field_selector: str = ""
    ) -> AsyncIterator[Event]:
        """Read the history as it grows. From version 0 everything that exists is told first, as Kubernetes does."""
        selects = selection(kind, label_selector, field_selector)
        if since == 0:
            page = self._resources.list(kind, namespace, selects)
            since = page.version
            for record in page.records:
                yield Event(ADDED, record.copy())
        watch = self._resources.watch(kind, since, namespace, selects)
        try:
            while events := await watch.next():
                for event_type, record in events:
                    yield Event(event_type, record.copy())
        finally:
            watch.close()


def _copy(document: Any) -> Any:
    return orjson.loads(orjson.dumps(document))
