"""Apply: make the cluster hold what manifests say, and leave alone what they do not mention.

Like `kubectl apply` (client side), and with its annotation, so that both can be used on one object: a three-way merge
of what was applied last, what is there, and what is wanted. A field that was applied and is no longer wanted is
removed; what the cluster itself added (defaults, a ClusterIP, status) stays.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from testbed.api import objects
from testbed.api.kinds import CONFIG_MAP, DEPLOYMENT, NAMESPACE, POD, REPLICA_SET, SERVICE, Kind
from testbed.api.objects import Key, Object, is_deleting, key, name, namespace, uid
from testbed.client.protocol import Client
from testbed.errors import AlreadyExists, ApiError, BadInput, NotFound, joined
from testbed.topology.manifests import Manifest
from testbed.topology.source import Loc
from testbed.waiting import wait_until_async

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
APPLIED_BY = "testbed/applied-by"
"""Label of every object that `up` applied; what carries it, and is in the manifests no longer, goes."""
UP = "up"
DEFAULT_NAMESPACE = "default"
PRUNED: tuple[Kind, ...] = (DEPLOYMENT, REPLICA_SET, POD, SERVICE, CONFIG_MAP, NAMESPACE)
_GONE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Applied:
    """What became of one object: `action` is created, configured, unchanged, replaced or deleted."""

    kind: Kind
    key: Key
    action: str
    object: Object

    def __str__(self) -> str:
        where = "" if self.key.namespace in ("", DEFAULT_NAMESPACE) else f" in {self.key.namespace}"
        return f"{self.kind.kind} {self.key.name}{where} {self.action}"


async def apply(client: Client, manifests: Sequence[Manifest], *, applied_by: str = "") -> list[Applied]:
    """Create, change or replace each object; namespaces first, the others side by side.

    Raises BadInput with file and line for everything that the API server finds wrong with the manifests.
    """
    results: list[Applied | ApiError] = []
    for is_first in (True, False):
        batch = [manifest for manifest in manifests if (manifest.kind == NAMESPACE) is is_first]
        results += await asyncio.gather(*(_apply_or_error(client, manifest, applied_by) for manifest in batch))
        _raise_mistakes(batch, results[-len(batch) :] if batch else [])
    return [result for result in results if isinstance(result, Applied)]


async def prune(client: Client, keep: Iterable[Applied]) -> list[Applied]:
    """Delete what an earlier `up` applied and this one did not: `keep` is what this one did."""
    kept = {(result.kind, result.key) for result in keep}
    pruned = []
    for kind in PRUNED:
        listed = await client.list(kind, label_selector=f"{APPLIED_BY}={UP}")
        for obj in listed.items:
            if (kind, key(obj)) not in kept and not is_deleting(obj):
                await _delete(client, kind, obj)
                pruned.append(Applied(kind, key(obj), "deleted", obj))
    return pruned


def three_way(last: Mapping[str, Any], live: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch (RFC 7396) that brings `live` to `wanted`, and removes what `last` had and `wanted` has not.

    Lists are replaced whole, unless `live` differs from them only by what the server filled in.
    """
    patch: dict[str, Any] = {field: None for field in last if field not in wanted and field in live}
    for field, value in wanted.items():
        here = live.get(field)
        if isinstance(value, Mapping) and isinstance(here, Mapping):
            before = last.get(field)
            if below := three_way(before if isinstance(before, Mapping) else {}, here, value):
                patch[field] = below
        elif isinstance(value, list) and last.get(field, value) == value and _covers(here, value):
            continue
        elif here != value:
            patch[field] = value
    return patch


def _covers(live: Any, wanted: Any) -> bool:
    """Whether `live` is `wanted` plus fields that the server filled in."""
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        return all(field in live and _covers(live[field], value) for field, value in wanted.items())
    if isinstance(wanted, list) and isinstance(live, list):
        return len(wanted) == len(live) and all(_covers(*pair) for pair in zip(live, wanted, strict=True))
    return bool(live == wanted)


async def _apply_or_error(client: Client, manifest: Manifest, applied_by: str) -> Applied | ApiError:
    try:
        return await _apply_one(client, manifest.kind, _desired(manifest, applied_by))
    except ApiError as error:
        return error


async def _apply_one(client: Client, kind: Kind, wanted: Object) -> Applied:
    try:
        return Applied(kind, key(wanted), "created", await client.create(wanted))
    except AlreadyExists:
        pass
    live = await client.get(kind, name(wanted), namespace(wanted))
    patch = three_way(_last_applied(live), live, wanted)
    if not patch:
        return Applied(kind, key(wanted), "unchanged", live)
    if kind == POD and "spec" in patch:  # a pod's spec cannot change; its successor has the same name
        await _delete(client, kind, live)
        return Applied(kind, key(wanted), "replaced", await client.create(wanted))
    changed = await client.patch(kind, name(wanted), patch, namespace(wanted))
    return Applied(kind, key(wanted), "configured", changed)


def _desired(manifest: Manifest, applied_by: str) -> Object:
    """The object as it is sent: namespace, our label, and itself as the annotation of what was applied last."""
    wanted: Object = _without_nulls(manifest.object)
    wanted.pop("status", None)
    meta = wanted["metadata"]
    if manifest.kind.namespaced:
        meta.setdefault("namespace", DEFAULT_NAMESPACE)
    if applied_by:
        meta["labels"] = {**(meta.get("labels") or {}), APPLIED_BY: applied_by}
    last = orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS).decode()
    meta["annotations"] = {**(meta.get("annotations") or {}), LAST_APPLIED: last}
    return wanted


def _without_nulls(value: Any) -> Any:
    """A copy in which a field without a value (`key:` and nothing behind it) is a field that is not there."""
    if isinstance(value, Mapping):
        return {field: _without_nulls(item) for field, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _last_applied(live: Object) -> Object:
    try:
        last = orjson.loads(objects.annotations(live).get(LAST_APPLIED) or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return last if isinstance(last, dict) else {}


async def _delete(client: Client, kind: Kind, obj: Object) -> None:
    """Delete this very object and return when it is gone."""

    async def is_gone() -> bool:
        try:
            return uid(await client.get(kind, name(obj), namespace(obj))) != uid(obj)
        except NotFound:
            return True

    try:
        await client.delete(kind, name(obj), namespace(obj), uid=uid(obj))
    except NotFound:
        return
    await wait_until_async(is_gone, _GONE_TIMEOUT_S, f"the deletion of {kind.kind} {key(obj)}")


def _raise_mistakes(manifests: Collection[Manifest], results: Collection[Applied | ApiError]) -> None:
    """One BadInput for all that is wrong with the manifests; what is wrong with the server is raised as it is."""
    mistakes: list[str] = []
    for manifest, result in zip(manifests, results, strict=True):
        if not isinstance(result, ApiError):
            continue
        if result.code >= 500:
            raise result
        causes = result.details.get("causes") or [
            {"message": f"{manifest.kind.kind} {name(manifest.object)}: {result}"}
        ]
        mistakes += [manifest.told(_loc(cause.get("field") or ""), cause.get("message") or "") for cause in causes]
    if mistakes:
        raise BadInput(joined(mistakes))


_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]|\[([^\]]+)\]")


def _loc(field: str) -> Loc:
    """A field as the API server names it, `spec.ports[0].port`, as a place in the document."""
    return tuple(int(match[2]) if match[2] else match[1] or match[3] for match in _STEP.finditer(field))
