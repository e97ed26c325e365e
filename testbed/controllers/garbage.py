"""Garbage: what has an owner goes when its last owner has gone (or, in the foreground, before it)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from testbed.api.kinds import Kind, kind_of
from testbed.api.objects import Key, Object, is_deleting, key, metadata, name, namespace, uid
from testbed.controllers.cluster import Cluster, owner_uids
from testbed.controllers.loop import Loop, together
from testbed.errors import BadRequest, NotFound

ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
"""Finalizers by which the API server asks: let the dependents go free, or delete them first."""

Which = tuple[Kind, Key]
Reference = Mapping[str, Any]


class Garbage:
    """The controller. An owner counts as gone only after the API itself has said so."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._client = cluster, cluster.client
        self.loop: Loop[Which] = Loop("garbage", self.reconcile, workers=32)
        for kind, informer in cluster.informers.items():
            informer.observe(partial(self._changed, kind))

    async def reconcile(self, which: Which) -> None:
        """Serve the object's dependents if it is going, and delete it if its owners have gone."""
        kind, at = which
        obj = self._cluster.informers[kind].items.get(at)
        if obj is None:
            return
        if is_deleting(obj):
            await self._let_go(kind, obj)
        elif references := metadata(obj).get("ownerReferences"):
            await self._judge(kind, obj, references)

    async def _judge(self, kind: Kind, obj: Object, references: list[Reference]) -> None:
        living = [reference for reference in references if await self._lives(reference, obj)]
        if not living:
            await self._client.delete(kind, name(obj), namespace(obj), uid=uid(obj))
        elif len(living) < len(references):
            await self._own(kind, obj, living)

    async def _lives(self, reference: Reference, obj: Object) -> bool:
        try:
            kind = kind_of(reference)
        except BadRequest:
            return True  # of a kind that is not served: nobody can say that it has gone
        at = Key(namespace(obj) if kind.namespaced else "", reference["name"])
        informer = self._cluster.informers.get(kind)
        if informer is not None and uid(informer.items.get(at, {})) == reference["uid"]:
            return True
        try:
            live = await self._client.get(kind, at.name, at.namespace)
        except NotFound:
            return False
        return uid(live) == str(reference["uid"])

    async def _let_go(self, kind: Kind, owner: Object) -> None:
        finalizers = metadata(owner).get("finalizers") or []
        dependents = [(of, obj) for of, index in self._cluster.dependents.items() for obj in index[uid(owner)]]
        if ORPHAN in finalizers:
            await together(*(self._free(of, obj, uid(owner)) for of, obj in dependents))
            await self._drop_finalizer(kind, owner, ORPHAN)
        elif FOREGROUND in finalizers:
            await together(*(self._delete_first(of, obj) for of, obj in dependents if not is_deleting(obj)))
            if not dependents:
                await self._drop_finalizer(kind, owner, FOREGROUND)

    async def _free(self, kind: Kind, obj: Object, owner: str) -> None:
        others = [reference for reference in metadata(obj)["ownerReferences"] if reference["uid"] != owner]
        await self._own(kind, obj, others)

    async def _own(self, kind: Kind, obj: Object, references: list[Reference]) -> None:
        meta = {"resourceVersion": metadata(obj)["resourceVersion"], "ownerReferences": references or None}
        written = await self._client.patch(kind, name(obj), {"metadata": meta}, namespace(obj))
        self._cluster.informers[kind].learn(written)

    async def _delete_first(self, kind: Kind, obj: Object) -> None:
        try:
            await self._client.delete(kind, name(obj), namespace(obj), propagation="Foreground", uid=uid(obj))
        except NotFound:
            return

    async def _drop_finalizer(self, kind: Kind, owner: Object, finalizer: str) -> None:
        others = [held for held in metadata(owner)["finalizers"] if held != finalizer]
        meta = {"resourceVersion": metadata(owner)["resourceVersion"], "finalizers": others or None}
        await self._client.patch(kind, name(owner), {"metadata": meta}, namespace(owner))

    def _changed(self, kind: Kind, which: Key, old: Object | None, new: Object | None) -> None:
        if new is not None and _concerns(old, new):
            self.loop.enqueue((kind, which))
        if old is not None and uid(old) != uid(new or {}):
            self._gone(old)

    def _gone(self, obj: Object) -> None:
        for kind, index in self._cluster.dependents.items():
            for dependent in index[uid(obj)]:
                self.loop.enqueue((kind, key(dependent)))
        for reference in metadata(obj).get("ownerReferences") or []:  # it may be what a foreground deletion waits for
            try:
                kind = kind_of(reference)
            except BadRequest:
                continue
            owner = Key(namespace(obj) if kind.namespaced else "", reference["name"])
            informer = self._cluster.informers.get(kind)
            if informer is not None and is_deleting(informer.items.get(owner, {})):
                self.loop.enqueue((kind, owner))


def _concerns(old: Object | None, new: Object) -> bool:
    """Whether the change is about ownership: new owners, or the wish to be deleted in order."""
    if is_deleting(new):
        return not is_deleting(old or {}) and bool(metadata(new).get("finalizers"))
    return bool(owner_uids(new)) and owner_uids(old or {}) != owner_uids(new)
