"""Deletion: at once, in two phases, or of a whole namespace (API concepts, "Resource deletion").

Who still holds an object (a finalizer, or the agent that runs a pod) sees its deletionTimestamp and lets go; the write
that takes away the last hold removes it. A namespace holds itself until its contents are gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from testbed.api.kinds import NAMESPACE, POD, Kind
from testbed.api.objects import Key, Object, is_deleting, key, metadata, resource_version, spec, status, uid
from testbed.apiserver import refusals
from testbed.apiserver.admission.cluster import NAMESPACE_FINALIZER
from testbed.apiserver.records import Record
from testbed.apiserver.store import Store
from testbed.errors import BadRequest

PERMANENT = ("default", "kube-system", "kube-public", "kube-node-lease")
"""Namespaces that may not be deleted."""
PROPAGATION = {"Background": "", "Foreground": "foregroundDeletion", "Orphan": "orphan"}
"""The finalizer by which the garbage collector is asked to act first."""
LONGEST_GRACE_S = 10 * 365 * 24 * 3600
"""What "for ever" comes to: Kubernetes allows any number of seconds, a date none beyond the year 9999."""


@dataclass(frozen=True)
class DeleteOptions:
    """metav1.DeleteOptions, as far as they are served."""

    grace_period_s: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""

    def check(self, kind: Kind, obj: Object) -> None:
        """Conflict unless `obj` is the very one that is meant."""
        for what, asked, found in (
            ("UID", self.uid, uid(obj)),
            ("ResourceVersion", self.resource_version, str(resource_version(obj))),
        ):
            if asked and asked != found:
                why = f"Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}"
                raise refusals.conflict(kind, metadata(obj)["name"], why)


class Deletion:
    """Deletes from one store. All methods stage; nothing is awaited."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def delete(self, kind: Kind, which: Key, options: DeleteOptions) -> tuple[Record, bool]:
        """The object's last or newest state, and whether it is gone. NotFound, Conflict."""
        record = self._store.get(kind, which)
        if record is None:
            raise refusals.not_found(kind, which.name)
        options.check(kind, record.document)
        if kind == NAMESPACE:
            return self._delete_namespace(record)
        obj = record.copy()
        finalizers = list(metadata(obj).get("finalizers") or [])
        hold = _finalizer(options.propagation)
        if hold and hold not in finalizers and not is_deleting(obj):
            finalizers.append(hold)
        grace_s = _grace_s(kind, obj, options.grace_period_s)
        if grace_s == 0 and not finalizers:
            return self.remove(kind, record), True
        return self._mark(kind, obj, grace_s, finalizers) or record, False

    def let_go(self, kind: Kind, obj: Object) -> Record | None:
        """Remove an object whose new state `obj` is no longer held by anything; None where it stays."""
        meta = metadata(obj)
        if not is_deleting(obj) or meta.get("finalizers") or meta.get("deletionGracePeriodSeconds"):
            return None
        if kind == NAMESPACE and spec(obj).get("finalizers"):
            return None
        removed = self._store.delete(kind, key(obj), obj)
        self._finish_namespace(meta.get("namespace", ""))
        return removed

    def remove(self, kind: Kind, record: Record) -> Record:
        """Remove an object, and its namespace if that waited only for it."""
        which = key(record.document)
        removed = self._store.delete(kind, which)
        self._finish_namespace(which.namespace)
        return removed

    def resume(self) -> None:
        """Go on with the namespaces that were being deleted when the server ended."""
        for record in self._store.list(NAMESPACE):
            if is_deleting(record.document):
                self._empty(record.document["metadata"]["name"])

    def _mark(self, kind: Kind, obj: Object, grace_s: int, finalizers: list[str]) -> Record | None:
        """Stage the wish to delete; None where it has been expressed already, and as strongly."""
        meta = obj["metadata"]
        if is_deleting(obj) and grace_s >= meta.get("deletionGracePeriodSeconds", 0):
            return None
        if not is_deleting(obj) and finalizers:
            meta["finalizers"] = finalizers
        if "generation" in meta and not is_deleting(obj):
            meta["generation"] += 1
        meta["deletionTimestamp"] = _in_seconds(grace_s)
        meta["deletionGracePeriodSeconds"] = grace_s
        return self._store.update(kind, obj)

    def _delete_namespace(self, record: Record) -> tuple[Record, bool]:
        name = record.document["metadata"]["name"]
        if name in PERMANENT:
            raise refusals.forbidden(NAMESPACE, name, "this namespace may not be deleted")
        if not is_deleting(record.document):
            obj = record.copy()
            obj["metadata"]["deletionTimestamp"] = _in_seconds(0)
            obj["status"]["phase"] = "Terminating"
            self._store.update(NAMESPACE, obj)
        self._empty(name)
        last = self._store.get(NAMESPACE, Key("", name))
        return (last, False) if last else (record, True)

    def _empty(self, namespace: str) -> None:
        """Delete everything in the namespace, and then, if nothing is held, itself."""
        for kind in list(self._store.kinds_in(namespace)):
            for record in self._store.list(kind, namespace):
                self.delete(kind, key(record.document), DeleteOptions())
        self._finish_namespace(namespace)

    def _finish_namespace(self, namespace: str) -> None:
        record = self._store.get(NAMESPACE, Key("", namespace)) if namespace else None
        if record is None or not is_deleting(record.document) or any(self._store.kinds_in(namespace)):
            return
        obj = record.copy()
        obj["spec"]["finalizers"] = [held for held in spec(obj).get("finalizers", []) if held != NAMESPACE_FINALIZER]
        if not obj["spec"]["finalizers"] and not metadata(obj).get("finalizers"):
            self._store.delete(NAMESPACE, key(obj), obj)
        elif obj != record.document:
            self._store.update(NAMESPACE, obj)


def _finalizer(propagation: str) -> str:
    if propagation and propagation not in PROPAGATION:
        raise BadRequest(f"invalid propagationPolicy {propagation!r}: supported values are {', '.join(PROPAGATION)}")
    return PROPAGATION.get(propagation, "")


def _grace_s(kind: Kind, obj: Mapping[str, Any], asked_s: int | None) -> int:
    """Only a pod that an agent may be running needs time."""
    if kind != POD or not spec(obj).get("nodeName") or status(obj).get("phase") in {"Succeeded", "Failed"}:
        return 0
    grace_s = spec(obj).get("terminationGracePeriodSeconds", 30) if asked_s is None else asked_s
    return min(max(int(grace_s), 0), LONGEST_GRACE_S)


def _in_seconds(seconds: int) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
