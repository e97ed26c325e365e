"""Kubernetes' verbs over the store: what HTTP and the in-process client both call.

Every write reads, decides and stages in one go, with no await between, so no other request comes in between; then it
awaits the commit. What is answered is on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.api.kinds import POD, Kind
from testbed.api.objects import Key, Object, is_deleting, key, name, now, spec, uid
from testbed.api.patch import merge_patch
from testbed.apiserver import refusals, scale
from testbed.apiserver.admission.admit import Admission
from testbed.apiserver.deletion import DeleteOptions, Deletion
from testbed.apiserver.history import Selects, Watch
from testbed.apiserver.records import Record
from testbed.apiserver.store import Store
from testbed.errors import BadRequest
from testbed.topology.spec import ServicesSpec


@dataclass(frozen=True)
class Page:
    """Objects of a list, and the version at which it is true."""

    records: Sequence[Record]
    version: int


class Resources:
    """All kinds of one cluster. Records handed out are shared: whoever wants to change one takes its copy."""

    def __init__(self, store: Store, services: ServicesSpec) -> None:
        self.store = store
        self._admission = Admission(store, services)
        self._deletion = Deletion(store)

    async def create(self, kind: Kind, namespace: str, obj: Object) -> Record:
        """Store a new object, made of `obj`, which is taken over."""
        record = self.store.create(kind, self._admission.create(kind, namespace, obj))
        await self.store.committed()
        return record

    def get(self, kind: Kind, which: Key) -> Record:
        """The newest version. NotFound."""
        self.store.settle()
        return self._get(kind, which)

    def list(self, kind: Kind, namespace: str = "", selects: Selects | None = None, version: int = 0) -> Page:
        """The objects that `selects` selects, as they are now, or as they were at `version` (Gone)."""
        self.store.settle()
        self.store.require_reached(version)
        at = version or self.store.version
        records = self.store.list_at(kind, at, namespace) if version else self.store.list(kind, namespace)
        return Page([record for record in records if selects is None or selects(record.document)], at)

    def watch(self, kind: Kind, since: int, namespace: str = "", selects: Selects | None = None) -> Watch:
        """The changes after version `since`."""
        return self.store.watch(kind, since, namespace, selects)

    async def update(self, kind: Kind, which: Key, obj: Object, subresource: str = "") -> Record:
        """Replace an object, or with `status` its status, by `obj`, which is taken over."""
        record = self._replace(kind, self._get(kind, which), obj, subresource)
        await self.store.committed()
        return record

    async def patch(self, kind: Kind, which: Key, patch: Any, subresource: str = "") -> Record:
        """Merge `patch` (RFC 7396) into the object as it is now."""
        return await self.change(kind, which, lambda held: merge_patch(held, patch), subresource)

    async def change(self, kind: Kind, which: Key, change: Callable[[Object], Any], subresource: str = "") -> Record:
        """Replace the object as it is now by what `change` makes of it."""
        old = self._get(kind, which)
        record = self._replace(kind, old, change(old.copy()), subresource)
        await self.store.committed()
        return record

    async def delete(self, kind: Kind, which: Key, options: DeleteOptions) -> tuple[Record, bool]:
        """Ask for deletion: the last or newest state, and whether the object is gone."""
        answer = self._deletion.delete(kind, which, options)
        await self.store.committed()
        return answer

    async def delete_all(self, kind: Kind, namespace: str, selects: Selects | None, options: DeleteOptions) -> Page:
        """Delete every selected object of a kind; what they were."""
        page = self.list(kind, namespace, selects)
        for record in page.records:
            self._deletion.delete(kind, key(record.document), options)
        await self.store.committed()
        return page

    async def scale(self, kind: Kind, which: Key, change: Callable[[Object], Object] | None = None) -> Object:
        """The Scale of a workload, after `change` made a new one of it."""
        record = self.get(kind, which)
        if change is not None:
            wanted = change(scale.scale_of(record.document))
            record = self._replace(kind, record, scale.scaled(kind, record.copy(), wanted), "")
            await self.store.committed()
        return scale.scale_of(record.document)

    async def bind(self, which: Key, node: str, expected_uid: str = "") -> None:
        """Give a pod its node. Conflict where it has one, is being deleted, or is not the one of that uid."""
        pod = self._get(POD, which).copy()
        _require_uid(POD, pod, expected_uid)
        if is_deleting(pod):
            raise refusals.conflict(POD, which.name, f"pod {which.name} is being deleted, cannot be assigned to a host")
        if found := spec(pod).get("nodeName"):
            raise refusals.conflict(POD, which.name, f'pod {which.name} is already assigned to node "{found}"')
        pod["spec"]["nodeName"] = node
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}
        others = [c for c in pod["status"].get("conditions", []) if c.get("type") != "PodScheduled"]
        pod["status"]["conditions"] = [scheduled, *others]
        self.store.update(POD, pod)
        await self.store.committed()

    async def resume(self) -> None:
        """Go on with deletions that were under way when the server ended."""
        self._deletion.resume()
        await self.store.committed()

    def _get(self, kind: Kind, which: Key) -> Record:
        record = self.store.get(kind, which)
        if record is None:
            raise refusals.not_found(kind, which.name)
        return record

    def _replace(self, kind: Kind, record: Record, obj: Object, subresource: str) -> Record:
        old = record.document
        _require_same(kind, old, obj)
        updated = self._admission.update(kind, obj, old, subresource)
        if updated == old:
            return record
        return self._deletion.let_go(kind, updated) or self.store.update(kind, updated)


def _require_same(kind: Kind, old: Object, obj: Object) -> None:
    """The object that was sent is the one that is addressed, and was read in its newest version."""
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict | None):
        raise BadRequest(f"the request's body is no {kind.kind}: its metadata is not a JSON object")
    meta = obj.get("metadata") or {}
    for field in ("name", "namespace"):
        found = old["metadata"].get(field, "")
        if meta.get(field, found) != found:
            raise BadRequest(
                f"the {field} of the object ({meta[field]}) does not match the {field} on the URL ({found})"
            )
    _require_uid(kind, old, meta.get("uid"))
    version = meta.get("resourceVersion")
    if version and version != old["metadata"]["resourceVersion"]:
        raise refusals.conflict(kind, name(old))


def _require_uid(kind: Kind, old: Object, expected: Any) -> None:
    if expected and expected != uid(old):
        why = f"Precondition failed: UID in precondition: {expected}, UID in object meta: {uid(old)}"
        raise refusals.conflict(kind, name(old), why)
