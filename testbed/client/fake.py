"""The client over a cluster in memory, for tests: the API server's rules about objects, with no admission.

It gives names, uids, versions and generations, keeps spec and status apart, deletes pods in two phases and honours
finalizers. It does not know defaults, validation, address allocation, or whether a namespace exists.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from testbed.api.kinds import NODE, POD, Kind, kind_of
from testbed.api.objects import (
    Event,
    Key,
    Object,
    ObjectList,
    is_deleting,
    key,
    name,
    now,
    resource_version,
    spec,
    status,
    uid,
)
from testbed.api.patch import merge_patch
from testbed.api.selectors import Predicate, field_selector, label_selector
from testbed.errors import AlreadyExists, Conflict, Gone, NotFound

SYSTEM_FIELDS = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
"""Of the metadata, what only the server writes."""
DEFAULT_GRACE_S = 30
PROPAGATION_FINALIZERS = {"Background": (), "Foreground": ("foregroundDeletion",), "Orphan": ("orphan",)}


@dataclass(frozen=True)
class Change:
    """One version of the store: an object before and after, as JSON."""

    version: int
    kind: Kind
    key: Key
    before: bytes | None
    after: bytes | None
    """None: deleted; `before` then carries the version of the deletion."""


@dataclass
class FakeClient:
    """`testbed.client.protocol.Client` over dictionaries. Everything handed out is a copy."""

    intercept: Callable[[str, Kind, Key], None] = lambda _verb, _kind, _key: None
    """Called first by every request; what it raises is the request's answer."""
    _objects: dict[tuple[Kind, Key], bytes] = field(default_factory=dict)
    _log: list[Change] = field(default_factory=list)
    _forgotten: int = 0
    _version: int = 0
    _epoch: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _suffixes: itertools.count[int] = field(default_factory=itertools.count)

    async def create(self, obj: Object) -> Object:
        """Store a new object under its name, or under one made from `generateName`."""
        kind = kind_of(obj)
        created = _copy(obj)
        meta = created.setdefault("metadata", {})
        if not meta.get("name"):
            meta["name"] = f"{meta['generateName']}{next(self._suffixes):05x}"
        self.intercept("create", kind, key(created))
        if (kind, key(created)) in self._objects:
            raise AlreadyExists(f'{kind.qualified} "{name(created)}" already exists')
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
        if "status" in kind.subresources and kind != NODE:  # a kubelet registers its node, status and all
            created["status"] = {"phase": "Pending"} if kind == POD else {}
        return self._store(kind, None, created)

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Object:
        """The object, or for `scale` the Scale made of it."""
        self.intercept("get", kind, Key(namespace, name))
        held = self._get(kind, Key(namespace, name))
        return _scale(held) if subresource == "scale" else held

    async def list(
        self, kind: Kind, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> ObjectList:
        """Sorted by namespace and name."""
        self.intercept("list", kind, Key(namespace, ""))
        wanted = _selection(kind, namespace, label_selector, field_selector)
        found = (orjson.loads(self._objects[at]) for at in sorted(self._objects, key=lambda at: at[1]) if at[0] == kind)
        return ObjectList([obj for obj in found if wanted(obj)], self._version)

    async def update(self, obj: Object, *, subresource: str = "") -> Object:
        """Replace spec and metadata, or with `status` that alone."""
        kind = kind_of(obj)
        self.intercept("update", kind, key(obj))
        return self._write(kind, self._get(kind, key(obj)), _copy(obj), subresource)

    async def patch(
        self, kind: Kind, name: str, patch: Mapping[str, Any], namespace: str = "", *, subresource: str = ""
    ) -> Object:
        """Merge into the object as it is now."""
        self.intercept("patch", kind, Key(namespace, name))
        held = self._get(kind, Key(namespace, name))
        if subresource == "scale":
            replicas = spec(merge_patch(_scale(held), patch))["replicas"]
            return _scale(self._write(kind, held, merge_patch(held, {"spec": {"replicas": replicas}}), ""))
        return self._write(kind, held, _copy(merge_patch(held, patch)), subresource)

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
        """Delete at once, or mark as being deleted while an agent or a finalizer holds the object."""
        self.intercept("delete", kind, Key(namespace, name))
        held = self._get(kind, Key(namespace, name))
        if uid and uid != held["metadata"]["uid"]:
            raise Conflict(f'{kind.qualified} "{name}" has uid {held["metadata"]["uid"]}, not {uid}')
        meta, grace_s = held["metadata"], _grace(kind, held, grace_period_s)
        finalizers = [*(meta.get("finalizers") or []), *PROPAGATION_FINALIZERS[propagation]]
        if grace_s == 0 and not finalizers:
            self._remove(kind, held)
        elif not is_deleting(held) or grace_s < meta["deletionGracePeriodSeconds"]:
            meta |= {"deletionTimestamp": _in_seconds(grace_s), "deletionGracePeriodSeconds": grace_s}
            meta |= {"finalizers": finalizers} if finalizers else {}
            meta["generation"] += 1
            self._store(kind, self._objects[kind, key(held)], held)

    async def watch(
        self, kind: Kind, namespace: str = "", *, since: int, label_selector: str = "", field_selector: str = ""
    ) -> AsyncIterator[Event]:
        """Follow the log of changes. An object that begins or ceases to be selected is added or deleted."""
        self.intercept("watch", kind, Key(namespace, ""))
        wanted = _selection(kind, namespace, label_selector, field_selector)
        epoch = self._epoch
        while epoch == self._epoch:
            if since < self._forgotten:
                raise Gone(f"too old resource version: {since} ({self._forgotten})")
            changed = self._changed
            for change in self._log[since - self._forgotten :]:
                since = change.version
                if change.kind == kind and (event := _event(change, wanted)):
                    yield event
            if since >= self._version:
                await changed.wait()

    def forget(self) -> None:
        """Drop the history, as compaction does: a watch from any earlier version is Gone."""
        self._forgotten = self._version
        self._log.clear()

    def disconnect(self) -> None:
        """End every watch that runs, as a server does that is restarted."""
        self._epoch += 1
        self._wake()

    def _get(self, kind: Kind, which: Key) -> Object:
        try:
            return _copy(self._objects[kind, which])
        except KeyError:
            raise NotFound(f'{kind.qualified} "{which.name}" not found') from None

    def _write(self, kind: Kind, held: Object, wanted: Object, subresource: str) -> Object:
        version = resource_version(wanted)
        if version and version != resource_version(held):
            raise Conflict(f'{kind.qualified} "{name(held)}": the object has been modified; read it again')
        if uid(wanted) and uid(wanted) != uid(held):
            raise Conflict(f'{kind.qualified} "{name(held)}" has uid {uid(held)}, not {uid(wanted)}')
        merged = _merged(kind, held, wanted, subresource)
        if merged == held:
            return held
        if is_deleting(merged) and not merged["metadata"].get("finalizers") and held["metadata"].get("finalizers"):
            return self._remove(kind, merged)
        return self._store(kind, self._objects[kind, key(held)], merged)

    def _store(self, kind: Kind, before: bytes | None, obj: Object) -> Object:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._objects[kind, key(obj)] = after = orjson.dumps(obj)
        self._record(Change(self._version, kind, key(obj), before, after))
        return obj

    def _remove(self, kind: Kind, obj: Object) -> Object:
        del self._objects[kind, key(obj)]
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._record(Change(self._version, kind, key(obj), orjson.dumps(obj), None))
        return obj

    def _record(self, change: Change) -> None:
        self._log.append(change)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _copy(obj: Object | bytes) -> Object:
    copied: Object = orjson.loads(obj if isinstance(obj, bytes) else orjson.dumps(obj))
    return copied


def _selection(kind: Kind, namespace: str, labels: str, fields: str) -> Predicate:
    by_label, by_field = label_selector(labels), field_selector(fields)
    everywhere = not namespace or not kind.namespaced
    return lambda obj: (everywhere or key(obj).namespace == namespace) and by_label(obj) and by_field(obj)


def _event(change: Change, wanted: Predicate) -> Event | None:
    before = None if change.before is None else _copy(change.before)
    after = None if change.after is None else _copy(change.after)
    was, is_now = before is not None and wanted(before), after is not None and wanted(after)
    if after is not None and is_now:
        return Event("MODIFIED" if was else "ADDED", after)
    if before is not None and was:
        before["metadata"]["resourceVersion"] = str(change.version)
        return Event("DELETED", before)
    return None


def _merged(kind: Kind, held: Object, wanted: Object, subresource: str) -> Object:
    if subresource == "status":
        return {**held, "status": status(wanted)}
    merged = {**wanted, "metadata": {**wanted.get("metadata", {}), **_system_metadata(held)}}
    if "status" in kind.subresources:
        merged.pop("status", None)
        merged |= {"status": held["status"]} if "status" in held else {}
    if spec(merged) != spec(held):
        merged["metadata"]["generation"] += 1
    return merged


def _system_metadata(held: Object) -> dict[str, Any]:
    meta = held["metadata"]
    kept = {field: meta[field] for field in SYSTEM_FIELDS if field in meta}
    return {**kept, "generation": meta["generation"], "resourceVersion": meta["resourceVersion"]}


def _grace(kind: Kind, held: Object, asked_s: int | None) -> int:
    has_agent = kind == POD and spec(held).get("nodeName") and status(held).get("phase") not in {"Succeeded", "Failed"}
    if not has_agent:
        return 0
    return int(spec(held).get("terminationGracePeriodSeconds", DEFAULT_GRACE_S)) if asked_s is None else asked_s


def _in_seconds(seconds: int) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _scale(obj: Object) -> Object:
    """autoscaling/v1 Scale of a Deployment or ReplicaSet."""
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {f: v for f, v in obj["metadata"].items() if f not in {"labels", "annotations", "generation"}},
        "spec": {"replicas": spec(obj).get("replicas", 1)},
        "status": {"replicas": status(obj).get("replicas", 0)},
    }
