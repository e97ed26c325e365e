"""Admission: from the document of a request to the object that is stored, or a refusal that lists every mistake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testbed.api.kinds import NAMESPACE, SERVICE, Kind
from testbed.api.objects import Key, Object, is_deleting, key, name, namespace
from testbed.apiserver import refusals
from testbed.apiserver.admission import metadata
from testbed.apiserver.admission.addresses import ServiceAddresses
from testbed.apiserver.admission.rules import RULES, Rules
from testbed.apiserver.refusals import Cause
from testbed.apiserver.store import Store
from testbed.errors import BadRequest
from testbed.topology.spec import ServicesSpec

TERMINATING = "NamespaceTerminating"


class Admission:
    """The rules of every kind, over one store."""

    def __init__(self, store: Store, services: ServicesSpec) -> None:
        self._store = store
        self._addresses = ServiceAddresses(store, services)

    def create(self, kind: Kind, namespace: str, obj: Object) -> Object:
        """The object to store, made of `obj`, which is taken over."""
        rules = RULES[kind]
        _require_shape(kind, rules, obj)
        metadata.begin(
            obj,
            kind,
            namespace,
            is_taken=lambda named: self._store.get(kind, key(named)) is not None,
            has_generation=rules.has_generation,
        )
        self._require_namespace(kind, obj)
        if "status" in kind.subresources and not rules.keeps_first_status:
            obj.pop("status", None)
        rules.default(obj)
        causes = self._assigned(kind, obj, None)
        causes += [*metadata.mistakes(obj, rules.name), *rules.validate(obj)]
        return _admitted(kind, obj, causes)

    def update(self, kind: Kind, obj: Object, old: Object, subresource: str = "") -> Object:
        """The next version of `old`, made of `obj`, which is taken over. Shares with `old` what does not change."""
        rules = RULES[kind]
        _require_shape(kind, rules, obj)
        metadata.carry_over(obj, old)
        if subresource == "status":
            updated = {**old, "metadata": obj["metadata"], "status": obj.get("status", {})}
            rules.default_status(updated)
            causes = [*metadata.update_mistakes(updated, old, rules.name), *rules.validate_status(updated)]
            return _admitted(kind, updated, causes)
        if "status" in kind.subresources:
            obj["status"] = old["status"]
        rules.default(obj)
        rules.settle(obj, old)
        if rules.keeps_spec:
            obj["spec"] = old["spec"]
        if rules.has_generation and _told(obj) != _told(old):
            obj["metadata"]["generation"] += 1
        causes = self._assigned(kind, obj, old)
        causes += [*metadata.update_mistakes(obj, old, rules.name), *rules.update_mistakes(obj, old)]
        return _admitted(kind, obj, causes)

    def _assigned(self, kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
        return list(self._addresses.assign(obj, old)) if kind == SERVICE else []

    def _require_namespace(self, kind: Kind, obj: Object) -> None:
        if not kind.namespaced:
            return
        home = self._store.get(NAMESPACE, Key("", namespace(obj)))
        if home is None:
            raise refusals.not_found(NAMESPACE, namespace(obj))
        if is_deleting(home.document):
            why = f"unable to create new content in namespace {namespace(obj)} because it is being terminated"
            cause = Cause("metadata.namespace", TERMINATING, f"namespace {namespace(obj)} is being terminated")
            raise refusals.forbidden(kind, name(obj), why, [cause])


def _admitted(kind: Kind, obj: Object, causes: Sequence[Cause]) -> Object:
    if causes:
        raise refusals.is_invalid(kind, name(obj), causes)
    return obj


def _require_shape(kind: Kind, rules: Rules, obj: Any) -> None:
    """BadRequest unless `obj` is a document of that kind."""
    if not isinstance(obj, dict):
        raise BadRequest(f"the request's body is no {kind.kind}: it is not a JSON object")
    said = obj.setdefault("apiVersion", kind.api_version), obj.setdefault("kind", kind.kind)
    if said != (kind.api_version, kind.kind):
        raise BadRequest(
            f"{said[1]} of {said[0]} in the body is no {kind.kind} of {kind.api_version}, as the path says"
        )
    causes: list[Cause] = []
    if obj.get("metadata") is None:
        obj["metadata"] = {}
    rules.shape(obj, "", causes)
    if causes:
        raise refusals.cannot_be_read(kind, causes)


def _told(obj: Object) -> dict[str, Any]:
    """What somebody asked for: the object without metadata and status."""
    return {field: value for field, value in obj.items() if field not in {"metadata", "status"}}
