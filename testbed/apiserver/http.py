"""The API server as an ASGI application: one table from method and target to a verb.

There is no framework between: a router over a dozen forms of one path scheme is smaller than its configuration, and
each layer less is time that a write does not wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from testbed.api.kinds import NAMESPACE
from testbed.api.objects import Object
from testbed.api.patch import is_plain, json_patch, merge_patch
from testbed.apiserver import discovery, logs, proxying
from testbed.apiserver.agents import Agents
from testbed.apiserver.auth import BearerToken
from testbed.apiserver.deletion import DeleteOptions
from testbed.apiserver.exchange import (
    JSON,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    TEXT,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    document,
    parsed,
    refusal,
)
from testbed.apiserver.lists import list_response, whole
from testbed.apiserver.records import Record
from testbed.apiserver.refusals import no_subprotocol
from testbed.apiserver.relay import Relay
from testbed.apiserver.resources import Resources
from testbed.apiserver.routes import Target, target
from testbed.apiserver.selection import selection
from testbed.apiserver.watching import BOOKMARK_S, WatchStream
from testbed.errors import ApiError, BadRequest, MethodNotAllowed, UnsupportedMediaType

HEALTH_PATHS = ("/healthz", "/livez", "/readyz")
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

Answer = Response | WatchStream | Relay
Verb = Callable[[Target, Request], Awaitable[Answer]]


class ApiServer:
    """The ASGI application. Whatever is refused is answered as a Status."""

    def __init__(
        self, resources: Resources, token: BearerToken, agents: Agents, *, bookmark_s: float = BOOKMARK_S
    ) -> None:
        self._bookmark_s = bookmark_s
        self._resources = resources
        self._token = token
        self._agents = agents
        self._documents = {path: document(value) for path, value in discovery.documents().items()}
        self._verbs: dict[tuple[str, str], Verb] = {
            ("GET", "collection"): self._list_or_watch,
            ("POST", "collection"): self._create,
            ("DELETE", "collection"): self._delete_collection,
            ("GET", "object"): self._get,
            ("PUT", "object"): self._update,
            ("PATCH", "object"): self._patch,
            ("DELETE", "object"): self._delete,
            ("GET", "status"): self._get,
            ("PUT", "status"): self._update,
            ("PATCH", "status"): self._patch,
            ("GET", "scale"): self._get_scale,
            ("PUT", "scale"): self._update_scale,
            ("PATCH", "scale"): self._patch_scale,
            ("POST", "binding"): self._bind,
            ("GET", "log"): self._log,
            ("GET", "exec"): self._exec_without_upgrade,
            ("POST", "exec"): self._exec_without_upgrade,
            **{(method, "proxy"): self._proxy for method in proxying.METHODS},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket."""
        request = Request(scope, receive)
        if scope["type"] == "websocket":
            from testbed.apiserver import exec_relay  # 30 ms of imports that the start need not wait for

            await exec_relay.serve(request, send, self._token, self._resources, self._agents)
            return
        try:
            answer = await self._answer(request)
        except ApiError as error:
            answer = refusal(error)
        await answer.send(send)

    async def _answer(self, request: Request) -> Answer:
        path = request.path
        self._token.require(path, request.header(b"authorization"))
        if found := self._documents.get(path.rstrip("/") or path):
            _require_get(request)
            return found
        if path in HEALTH_PATHS:
            _require_get(request)
            return _health(path, request)
        addressed = target(path)
        verb = self._verbs.get((request.method, addressed.form))
        is_everywhere = addressed.kind.namespaced and not addressed.namespace
        if verb is None or (is_everywhere and request.method != "GET"):
            raise not_allowed()
        if request.method in WRITES and "dryRun" in request.query:
            raise BadRequest("dryRun is not served: nothing was changed")
        return await verb(addressed, request)

    async def _list_or_watch(self, addressed: Target, request: Request) -> Answer:
        request.require_json_accepted()
        if request.flag("watch"):
            return WatchStream.open(self._resources, addressed, request, bookmark_s=self._bookmark_s)
        return list_response(self._resources, addressed, request)

    async def _create(self, addressed: Target, request: Request) -> Response:
        obj = await request.json(JSON)
        return _object(await self._resources.create(addressed.kind, addressed.namespace, obj), 201)

    async def _get(self, addressed: Target, request: Request) -> Response:
        request.require_json_accepted()
        return _object(self._resources.get(addressed.kind, addressed.key))

    async def _update(self, addressed: Target, request: Request) -> Response:
        obj = await request.json(JSON)
        return _object(await self._resources.update(addressed.kind, addressed.key, obj, addressed.subresource))

    async def _patch(self, addressed: Target, request: Request) -> Response:
        change = await _patch(request)
        return _object(await self._resources.change(addressed.kind, addressed.key, change, addressed.subresource))

    async def _delete(self, addressed: Target, request: Request) -> Response:
        options = await _delete_options(request)
        record, is_gone = await self._resources.delete(addressed.kind, addressed.key, options)
        return document(_deleted(addressed, record)) if is_gone else _object(record)

    async def _delete_collection(self, addressed: Target, request: Request) -> Response:
        if addressed.kind == NAMESPACE:
            raise not_allowed()
        options, query = await _delete_options(request), request.query
        selects = selection(addressed.kind, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        page = await self._resources.delete_all(addressed.kind, addressed.namespace, selects, options)
        return whole(addressed.kind, page)

    async def _get_scale(self, addressed: Target, _request: Request) -> Response:
        return document(await self._resources.scale(addressed.kind, addressed.key))

    async def _update_scale(self, addressed: Target, request: Request) -> Response:
        wanted = await request.json(JSON)
        return document(await self._resources.scale(addressed.kind, addressed.key, lambda _held: wanted))

    async def _patch_scale(self, addressed: Target, request: Request) -> Response:
        change = await _patch(request)
        return document(await self._resources.scale(addressed.kind, addressed.key, change))

    async def _bind(self, addressed: Target, request: Request) -> Response:
        binding = await request.json(JSON)
        wanted = binding.get("target") if isinstance(binding, dict) else None
        node = wanted.get("name") if isinstance(wanted, dict) else None
        if not isinstance(node, str) or not node:
            raise BadRequest("the request's body is no Binding: target.name names no node")
        meta = binding.get("metadata")
        await self._resources.bind(addressed.key, node, meta.get("uid", "") if isinstance(meta, dict) else "")
        return document({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)

    async def _log(self, addressed: Target, request: Request) -> Answer:
        pod = self._resources.get(addressed.kind, addressed.key).document
        return await logs.open_log(self._agents, self._resources, pod, request)

    async def _proxy(self, addressed: Target, request: Request) -> Answer:
        return await proxying.proxied(self._resources, self._agents, addressed, request)

    async def _exec_without_upgrade(self, _addressed: Target, _request: Request) -> Answer:
        raise no_subprotocol()


def not_allowed() -> MethodNotAllowed:
    """The refusal of a verb that does not apply to a path."""
    return MethodNotAllowed("the server does not allow this method on the requested resource")


def _require_get(request: Request) -> None:
    if request.method != "GET":
        raise not_allowed()


def _health(path: str, request: Request) -> Response:
    """A server that answers is well: what could ail it, its store, is checked by every write."""
    said = f"[+]ping ok\n{path[1:]} check passed\n" if "verbose" in request.query else "ok"
    return Response(said.encode(), media_type=TEXT)


def _object(record: Record, status: int = 200) -> Response:
    return Response(record.raw, status)


async def _patch(request: Request) -> Callable[[Object], Any]:
    """What a patch does to an object; one that is nested too deeply for an object is refused.

    A strategic merge patch without lists, such as those of `kubectl rollout restart` and `pause`, is a merge patch.
    """
    patch = await request.json(MERGE_PATCH, JSON_PATCH, STRATEGIC_PATCH)
    try:
        orjson.dumps(patch)
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"the patch cannot be applied: {error}") from error
    if request.media_type == STRATEGIC_PATCH and not is_plain(patch):
        raise UnsupportedMediaType("a strategic merge patch may have no lists and no directives; use a merge patch")
    apply = json_patch if request.media_type == JSON_PATCH else merge_patch
    return lambda held: apply(held, patch)


async def _delete_options(request: Request) -> DeleteOptions:
    """From the body, or from the query."""
    body = await request.body()
    given = parsed(body) if body else {}
    if not isinstance(given, dict):
        raise BadRequest("the request's body is no DeleteOptions: it is not a JSON object")
    if given.get("dryRun"):
        raise BadRequest("dryRun is not served: nothing was changed")
    grace_s = given.get("gracePeriodSeconds", request.number("gracePeriodSeconds"))
    propagation = given.get("propagationPolicy") or request.query.get("propagationPolicy", "")
    if given.get("orphanDependents") or request.flag("orphanDependents"):
        propagation = "Orphan"
    expected = given.get("preconditions") or {}
    if not (
        isinstance(grace_s, int | None)
        and isinstance(propagation, str)
        and isinstance(expected, dict)
        and all(isinstance(value, str | None) for value in expected.values())
    ):
        raise BadRequest("the request's body is no DeleteOptions: a field is of the wrong type")
    return DeleteOptions(grace_s, propagation, expected.get("uid") or "", expected.get("resourceVersion") or "")


def _deleted(addressed: Target, record: Record) -> Object:
    details = {"name": addressed.name, "kind": addressed.kind.plural, "uid": record.document["metadata"]["uid"]}
    if addressed.kind.group:
        details["group"] = addressed.kind.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
