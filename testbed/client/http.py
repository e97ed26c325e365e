"""The client over HTTP: TLS with the cluster's own CA, or a Unix socket; the only place that knows httpx."""

from __future__ import annotations

import socket as sockets
import ssl
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import orjson

from testbed.api.kinds import POD, Kind, kind_of
from testbed.api.objects import Event, Object, ObjectList, name, namespace
from testbed.errors import ApiError, ServiceUnavailable, api_error

if TYPE_CHECKING:
    from testbed.client.streams import ExecStream

# httpx loads its command line with it where click, rich and pygments are installed: 90 modules, 33 ms and 5 MB that no
# daemon uses. An entry of None makes that import fail (Python reference, 5.3.1), which httpx is prepared for.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
import httpx  # noqa: E402

REQUEST_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
STREAM_TIMEOUT = httpx.Timeout(None, connect=5.0)
"""A watch may be silent for as long as nothing changes; a dead peer is found by TCP keep-alive."""

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_KEEP_ALIVE = [
    (sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1),
    (sockets.IPPROTO_TCP, sockets.TCP_KEEPIDLE, 5),
    (sockets.IPPROTO_TCP, sockets.TCP_KEEPINTVL, 2),
    (sockets.IPPROTO_TCP, sockets.TCP_KEEPCNT, 3),
]
"""A control plane whose namespace is gone sends no reset: it is noticed after 5 + 3 * 2 seconds."""


class HttpClient:
    """`testbed.client.protocol.Client` over one pool of kept connections, and logs and exec beside it.

    `url` is `https://HOST:PORT` (verified with `ca`, PEM; None: the machine's own CAs), or `unix:///PATH`; with
    `socket` all requests go through that Unix socket in plain HTTP, whatever the URL says. Raises ServiceUnavailable
    where the server cannot be reached; no request is sent twice.
    """

    def __init__(self, url: str, token: str, ca: bytes | None = None, socket: Path | None = None) -> None:
        if url.startswith("unix://"):
            socket = Path(url.removeprefix("unix://"))
        self.url = f"unix://{socket}" if socket else url.rstrip("/")
        self._socket = socket
        self._base = "http://localhost" if socket else self.url
        self._tls = ssl.create_default_context(cadata=ca and ca.decode()) if self._base.startswith("https") else None
        self._headers = {"Authorization": f"Bearer {token}"}
        transport = httpx.AsyncHTTPTransport(
            verify=self._tls or False,
            uds=str(socket) if socket else None,
            socket_options=None if socket else _KEEP_ALIVE,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=30.0),
            trust_env=False,
        )
        self._http = httpx.AsyncClient(
            transport=transport,
            base_url=self._base,
            headers={**self._headers, "Accept": _JSON, "Accept-Encoding": "identity", "User-Agent": "testbed"},
            timeout=REQUEST_TIMEOUT,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; running watches end with ServiceUnavailable."""
        await self._http.aclose()

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

    async def watch(
        self, kind: Kind, namespace: str = "", *, since: int, label_selector: str = "", field_selector: str = ""
    ) -> AsyncIterator[Event]:
        """A stream of JSON lines. An ERROR event, also the first, is raised as the ApiError that it carries."""
        query = {"watch": "1", "resourceVersion": str(since), "allowWatchBookmarks": "1"}
        query |= _selectors(label_selector, field_selector)
        async with self._stream(kind.path(namespace), query) as response:
            async for line in _lines(response):
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    raise api_error(event["object"])
                yield Event(event["type"], event["object"])

    async def logs(
        self, namespace: str, pod: str, container: str = "", *, follow: bool = False, tail: int | None = None
    ) -> AsyncIterator[bytes]:
        """What a container printed, as it arrives; with `follow` until it ends. `tail` starts that many lines back."""
        query = {"container": container} if container else {}
        if follow:
            query["follow"] = "1"
        if tail is not None:
            query["tailLines"] = str(tail)
        async with self._stream(POD.path(namespace, pod, "log"), query) as response:
            async for chunk in response.aiter_raw():
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
            f"{base}{POD.path(namespace, pod, 'exec')}?{urlencode(query)}",
            headers=self._headers,
            tls=self._tls,
            socket=self._socket,
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
        content = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": content_type} if content is not None else None
        try:
            response = await self._http.request(method, path, params=query, content=content, headers=headers)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        return _answer(response)

    @asynccontextmanager
    async def _stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        try:
            async with self._http.stream("GET", path, params=query, timeout=STREAM_TIMEOUT) as response:
                if response.is_error:
                    await response.aread()
                    _answer(response)
                yield response
        except (httpx.TransportError, httpx.StreamError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> ServiceUnavailable:
        said = str(error) or type(error).__name__
        return ServiceUnavailable(f"the API server at {self.url} cannot be reached ({said}); is the cluster up?")


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    given = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {parameter: value for parameter, value in given.items() if value}


def _answer(response: httpx.Response) -> Object:
    try:
        doc = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        doc = None
    if response.is_success and isinstance(doc, dict):
        return doc
    if isinstance(doc, dict) and doc.get("kind") == "Status":
        raise api_error(doc)
    raise _foreign(response)


def _foreign(response: httpx.Response) -> ApiError:
    said = response.text.strip()[:200] or response.reason_phrase
    return api_error({"code": response.status_code, "message": f"{response.url.path} answered: {said}"})


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in response.aiter_raw():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
