"""The client over HTTP: TLS with the cluster's own CA, or a Unix socket."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import orjson

from testbed.api.kinds import POD, Kind, kind_of
from testbed.api.objects import Event, Object, ObjectList, name, namespace
from testbed.client.connection import Connections, Exchange, Server
from testbed.errors import ApiError, BadInput, ServiceUnavailable, api_error

if TYPE_CHECKING:
    from testbed.client.streams import ExecStream

REQUEST_TIMEOUT_S = 30.0
"""A watch has none: it may be silent for as long as nothing changes, and a dead peer is found by TCP keep-alive."""

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"


class HttpClient:
    """`testbed.client.protocol.Client` over one pool of kept connections, and logs and exec beside it.

    `url` is `https://HOST:PORT` (verified with `ca`, PEM; None: the machine's own CAs), or `unix:///PATH`; with
    `socket` all requests go through that Unix socket in plain HTTP, whatever the URL says. Raises ServiceUnavailable
    where the server cannot be reached; no write is sent twice.
    """

    def __init__(self, url: str, token: str, ca: bytes | None = None, socket: Path | None = None) -> None:
        if url.startswith("unix://"):
            socket = Path(url.removeprefix("unix://"))
        self.url = f"unix://{socket}" if socket else url.rstrip("/")
        self._base = "http://localhost" if socket else self.url
        self._server = _server(self._base, ca, socket)
        self._authorization = f"Bearer {token}"
        self._common = f"Host: {urlsplit(self._base).netloc}\r\nAuthorization: {self._authorization}\r\n"
        self._connections = Connections(self._server.connect)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; running watches end with ServiceUnavailable."""
        self._connections.close()

    async def create(self, obj: Object) -> Object:
        """POST to the collection."""
        return await self._call("POST", kind_of(obj).path(namespace(obj)), body=obj)

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Object:
        """GET an object or its subresource."""
        return await self._call("GET", kind.path(namespace, name, subresource))

    async def list(
        self, kind: Kind, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> ObjectList:
        """GET the collection. Items carry apiVersion and kind, which Kubernetes itself leaves out of lists."""
        query = _selectors(label_selector, field_selector)
        doc = await self._call("GET", kind.path(namespace), query=query)
        items = [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in doc.get("items") or []]
        meta = doc.get("metadata") or {}
        return ObjectList(items, int(meta.get("resourceVersion") or 0), meta.get("continue") or "")

    async def update(self, obj: Object, *, subresource: str = "") -> Object:
        """PUT the whole object."""
        return await self._call("PUT", kind_of(obj).path(namespace(obj), name(obj), subresource), body=obj)

    async def patch(
        self, kind: Kind, name: str, patch: Mapping[str, Any], namespace: str = "", *, subresource: str = ""
    ) -> Object:
        """PATCH with a merge patch."""
        path = kind.path(namespace, name, subresource)
        return await self._call("PATCH", path, body=patch, content_type=_MERGE_PATCH)

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
        """DELETE with DeleteOptions."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if uid:
            options["preconditions"] = {"uid": uid}
        await self._call("DELETE", kind.path(namespace, name), body=options)

    async def delete_collection(self, kind: Kind, namespace: str = "", *, label_selector: str = "") -> None:
        """DELETE the collection: every object in it, or those that the selector names."""
        query = _selectors(label_selector, "")
        await self._call(
            "DELETE", kind.path(namespace), query=query, body={"apiVersion": "v1", "kind": "DeleteOptions"}
        )

    async def watch(
        self, kind: Kind, namespace: str = "", *, since: int, label_selector: str = "", field_selector: str = ""
    ) -> AsyncIterator[Event]:
        """A stream of JSON lines. An ERROR event, also the first, is raised as the ApiError that it carries."""
        query = {"watch": "1", "resourceVersion": str(since), "allowWatchBookmarks": "1"}
        query |= _selectors(label_selector, field_selector)
        async with self._stream(kind.path(namespace), query) as exchange:
            async for line in _lines(exchange):
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    raise api_error(event["object"])
                yield Event(event["type"], event["object"])

    async def get_raw(self, target: str) -> bytes:
        """GET any path, with its query: `kubectl get --raw`. The ApiError for every answer that is no success."""
        path, _, query = target.partition("?")
        request = self._request("GET", path, dict(parse_qsl(query, keep_blank_values=True)))
        try:
            status, answer = await self._connections.fetch(request, timeout_s=REQUEST_TIMEOUT_S, is_safe=True)
        except OSError as error:
            raise self._unreachable(error) from error
        if not 200 <= status < 300:
            _answer(path, status, answer)
        return answer

    async def logs(
        self, namespace: str, pod: str, container: str = "", *, follow: bool = False, tail: int | None = None
    ) -> AsyncIterator[bytes]:
        """What a container printed, as it arrives; with `follow` until it ends. `tail` starts that many lines back."""
        query = {"container": container} if container else {}
        if follow:
            query["follow"] = "1"
        if tail is not None:
            query["tailLines"] = str(tail)
        async with self._stream(POD.path(namespace, pod, "log"), query) as exchange:
            async for chunk in exchange.chunks():
                yield chunk

    def exec(
        self,
        namespace: str,
        pod: str,
        argv: Sequence[str],
        *,
        container: str = "",
        stdin: AsyncIterator[bytes] | None = None,
        tty: bool = False,
    ) -> ExecStream:
        """Run `argv` in a container: `async with client.exec(…) as stream`. With `stdin`, it is sent to its end."""
        from testbed.client.streams import ExecStream  # only those who exec pay for importing websockets

        query = [("command", word) for word in argv] + [("stdout", "1")]
        query += [("container", container)] if container else []
        query += [("stdin", "1")] if stdin is not None else []
        query += [("tty", "1")] if tty else [("stderr", "1")]
        base = self._base.replace("http", "ws", 1)
        return ExecStream(
            f"{base}{quote(POD.path(namespace, pod, 'exec'))}?{urlencode(query)}",
            headers={"Authorization": self._authorization},
            tls=self._server.tls,
            socket=self._server.socket,
            stdin=stdin,
        )

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
    ) -> Object:
        content = b"" if body is None else orjson.dumps(body)
        request = self._request(method, path, query or {}, content, content_type)
        try:
            status, answer = await self._connections.fetch(
                request, timeout_s=REQUEST_TIMEOUT_S, is_safe=method == "GET"
            )
        except OSError as error:
            raise self._unreachable(error) from error
        return _answer(path, status, answer)

    @asynccontextmanager
    async def _stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Exchange]:
        try:
            async with self._connections.exchange(self._request("GET", path, query)) as exchange:
                if await exchange.head() >= 400:
                    _answer(path, exchange.status, await exchange.body())
                yield exchange
        except OSError as error:
            raise self._unreachable(error) from error

    def _request(
        self, method: str, path: str, query: Mapping[str, str], content: bytes = b"", content_type: str = _JSON
    ) -> bytes:
        target = quote(path) + ("?" + urlencode(query) if query else "")
        said = f"Content-Type: {content_type}\r\nContent-Length: {len(content)}\r\n" if content else ""
        head = f"{method} {target} HTTP/1.1\r\n{self._common}Accept: {_JSON}, */*\r\nUser-Agent: testbed\r\n{said}\r\n"
        return head.encode() + content

    def _unreachable(self, error: Exception) -> ServiceUnavailable:
        said = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
        return ServiceUnavailable(f"the API server at {self.url} cannot be reached ({said}); is the cluster up?")


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    given = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {parameter: value for parameter, value in given.items() if value}


def _answer(path: str, status: int, body: bytes) -> Object:
    try:
        doc = orjson.loads(body)
    except orjson.JSONDecodeError:
        doc = None
    if 200 <= status < 300 and isinstance(doc, dict):
        return doc
    if isinstance(doc, dict) and doc.get("kind") == "Status":
        raise api_error(doc)
    raise _foreign(path, status, body)


def _foreign(path: str, status: int, body: bytes) -> ApiError:
    said = body.decode(errors="replace").strip()[:200] or "nothing"
    return api_error({"code": status, "message": f"{path} answered with HTTP {status}: {said}"})


async def _lines(exchange: Exchange) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in exchange.chunks():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


def _server(base: str, ca: bytes | None, socket: Path | None) -> Server:
    if socket is not None:
        return Server(socket=socket)
    parts = urlsplit(base)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadInput(f"{base!r} is no address of an API server: give https://HOST:PORT or unix:///PATH")
    tls = ssl.create_default_context(cadata=ca.decode() if ca else None) if parts.scheme == "https" else None
    return Server(parts.hostname, parts.port or (443 if tls else 80), tls)
