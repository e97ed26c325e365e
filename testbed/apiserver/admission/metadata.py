"""metadata: what only the server writes, and the rules of what others write."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from testbed.api.kinds import Kind
from testbed.api.objects import Object, now
from testbed.api.wellknown import SAFE_ALPHABET
from testbed.apiserver import refusals
from testbed.apiserver.admission import names
from testbed.apiserver.admission.names import Syntax
from testbed.apiserver.refusals import Cause
from testbed.errors import BadRequest

SYSTEM_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
IGNORED_FIELDS = ("selfLink", "managedFields")
OPTIONAL_FIELDS = ("labels", "annotations", "finalizers", "ownerReferences", "generateName")
SUFFIX_LENGTH = 5
MAX_GENERATED_BASE = 63 - SUFFIX_LENGTH
GENERATED_NAME_TRIES = 8
STANDARD_FINALIZERS = ("orphan", "foregroundDeletion", "kubernetes")


def begin(obj: Object, kind: Kind, namespace: str, *, is_taken: Callable[[Object], bool], has_generation: bool) -> None:
    """Make the metadata of a new object: namespace, name, uid, time. BadRequest where it contradicts the request.

    Only a name that is generated here evades one that `is_taken`: a name that was asked for is met by AlreadyExists.
    """
    meta = obj["metadata"]
    if meta.get("resourceVersion"):
        raise BadRequest("resourceVersion should not be set on objects to be created")
    for field in (*SYSTEM_FIELDS, *IGNORED_FIELDS):
        meta.pop(field, None)
    settle_namespace(meta, kind, namespace)
    if not meta.get("name") and meta.get("generateName"):
        for _ in range(GENERATED_NAME_TRIES):
            meta["name"] = generated_name(meta["generateName"])
            if not is_taken(obj):
                break
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = now()
    if has_generation:
        meta["generation"] = 1
    drop_empty(meta)


def carry_over(obj: Object, old: Object) -> None:
    """Make the metadata of a new version: what only the server writes stays as it was."""
    meta, before = obj["metadata"], old["metadata"]
    for field in (*SYSTEM_FIELDS, *IGNORED_FIELDS):
        meta.pop(field, None)
    meta |= {field: before[field] for field in SYSTEM_FIELDS if field in before}
    for field in ("name", "namespace", "generateName", "resourceVersion"):
        if field in before:
            meta[field] = before[field]
    drop_empty(meta)


def settle_namespace(meta: dict[str, Any], kind: Kind, namespace: str) -> None:
    """The object's namespace is that of the request."""
    if not kind.namespaced:
        meta.pop("namespace", None)
        return
    if meta.setdefault("namespace", namespace) != namespace:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
    if not namespace:
        raise BadRequest("an empty namespace may not be set during creation")


def generated_name(base: str) -> str:
    """`base` and five random characters."""
    suffix = "".join(secrets.choice(SAFE_ALPHABET) for _ in range(SUFFIX_LENGTH))
    return base[:MAX_GENERATED_BASE] + suffix


def drop_empty(meta: dict[str, Any]) -> None:
    """Leave out what is empty, as Go's omitempty does."""
    for field in OPTIONAL_FIELDS:
        if field in meta and not meta[field]:
            del meta[field]


def mistakes(obj: Object, syntax: Syntax) -> Iterator[Cause]:
    """What is wrong with the metadata of an object whose name has this syntax."""
    meta = obj["metadata"]
    if not meta.get("name"):
        yield refusals.required("metadata.name", "name or generateName is required")
    else:
        yield from names.checked(syntax, meta["name"], "metadata.name")
    yield from names.check_labels(meta.get("labels", {}), "metadata.labels")
    yield from names.check_annotations(meta.get("annotations", {}), "metadata.annotations")
    for finalizer in meta.get("finalizers", []):
        yield from _finalizer(finalizer)
    yield from _owners(meta.get("ownerReferences", []))


def update_mistakes(obj: Object, old: Object, syntax: Syntax) -> Iterator[Cause]:
    """The same of a new version: nothing may newly hold an object that is being deleted."""
    yield from mistakes(obj, syntax)
    meta, before = obj["metadata"], old["metadata"]
    added = set(meta.get("finalizers", [])) - set(before.get("finalizers", []))
    if before.get("deletionTimestamp") and added:
        detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}"
        yield refusals.forbidden_field("metadata.finalizers", detail)


def _finalizer(finalizer: str) -> Iterator[Cause]:
    yield from names.qualified_name(finalizer, "metadata.finalizers")
    if "/" not in finalizer and finalizer not in STANDARD_FINALIZERS:
        detail = "name is neither a standard finalizer name nor is it fully qualified"
        yield refusals.invalid("metadata.finalizers", finalizer, detail)


def _owners(owners: list[dict[str, Any]]) -> Iterator[Cause]:
    for index, owner in enumerate(owners):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                yield refusals.invalid(f"metadata.ownerReferences[{index}].{field}", "", "must not be empty")
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        detail = "Only one reference can have Controller set to true"
        yield refusals.invalid("metadata.ownerReferences", len(owners), detail)
