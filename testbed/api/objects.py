"""Kubernetes objects as they travel: JSON documents, and the few accessors everybody needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

Object = dict[str, Any]
"""One API object: apiVersion, kind, metadata and the rest, exactly as JSON holds it."""


class Key(NamedTuple):
    """Which object of a kind; the namespace is empty for cluster-scoped kinds."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True)
class Event:
    """One step of a watch: `type` is ADDED, MODIFIED, DELETED or BOOKMARK.

    An ERROR event never reaches a caller: it is raised as the ApiError it carries.
    """

    type: str
    object: Object


@dataclass(frozen=True)
class ObjectList:
    """A list, and the resourceVersion at which it is true: watch from there and nothing is missed."""

    items: list[Object]
    resource_version: int
    continue_token: str = ""


def metadata(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The object's metadata; an empty mapping where it has none."""
    return obj.get("metadata") or {}


def name(obj: Mapping[str, Any]) -> str:
    """metadata.name"""
    return str(metadata(obj).get("name") or "")


def namespace(obj: Mapping[str, Any]) -> str:
    """metadata.namespace, empty for cluster-scoped objects."""
    return str(metadata(obj).get("namespace") or "")


def uid(obj: Mapping[str, Any]) -> str:
    """metadata.uid"""
    return str(metadata(obj).get("uid") or "")


def key(obj: Mapping[str, Any]) -> Key:
    """Namespace and name."""
    return Key(namespace(obj), name(obj))


def labels(obj: Mapping[str, Any]) -> dict[str, str]:
    """metadata.labels"""
    return metadata(obj).get("labels") or {}


def annotations(obj: Mapping[str, Any]) -> dict[str, str]:
    """metadata.annotations"""
    return metadata(obj).get("annotations") or {}


def annotated_number(obj: Mapping[str, Any], annotation: str) -> int:
    """The annotation as a number; 0 where there is none, or what is no number: anybody may write annotations."""
    try:
        return int(annotations(obj).get(annotation) or 0)
    except ValueError:
        return 0


def resource_version(obj: Mapping[str, Any]) -> int:
    """metadata.resourceVersion as a number; 0 where there is none. Ours are decimal, and grow over all kinds."""
    return int(metadata(obj).get("resourceVersion") or 0)


def is_deleting(obj: Mapping[str, Any]) -> bool:
    """Whether a deletion has been asked for (metadata.deletionTimestamp)."""
    return bool(metadata(obj).get("deletionTimestamp"))


def spec(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The object's spec; an empty mapping where it has none."""
    return obj.get("spec") or {}


def status(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The object's status; an empty mapping where it has none."""
    return obj.get("status") or {}


def condition(obj: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The status condition of that type; an empty mapping where there is none."""
    return next((c for c in status(obj).get("conditions") or [] if c.get("type") == kind), {})


def is_ready(obj: Mapping[str, Any]) -> bool:
    """Whether the condition Ready of a Pod or Node is True."""
    return condition(obj, "Ready").get("status") == "True"


def controller_of(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The ownerReference with controller: true; an empty mapping where there is none."""
    return next((r for r in metadata(obj).get("ownerReferences") or [] if r.get("controller")), {})


def owner_reference(owner: Mapping[str, Any]) -> dict[str, Any]:
    """A controlling ownerReference to `owner`, which must carry its apiVersion, kind and uid."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name(owner),
        "uid": uid(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def now() -> str:
    """metav1.Time: RFC 3339, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_micro() -> str:
    """metav1.MicroTime: RFC 3339, UTC, microseconds (Leases, Events)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """A metav1.Time or MicroTime."""
    return datetime.fromisoformat(text)
