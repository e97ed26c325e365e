"""One HTTP request and its response, over ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, quote

import orjson

from testbed.errors import ApiError, BadRequest, NotAcceptable, RequestTooLarge, UnsupportedMediaType

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_LIMIT = 3 << 20
"""Bytes; Kubernetes' own limit."""
MAX_DIGITS = 18
"""Of a number in a query: what fits into 64 bits."""
JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
MERGE_PATCH, JSON_PATCH = b"application/merge-patch+json", b"application/json-patch+json"
STRATEGIC_PATCH = b"application/strategic-merge-patch+json"
ACCEPTABLE = (JSON, b"application/*", b"*/*")


class Request:
    """What was asked. Everything is read when somebody wants it."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope.get("method", "GET")
        self.path: str = scope["path"]
        self.receive = receive
        self.query_string: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        """By their names in lower case; of one that is repeated, the last."""
        self._raw_path: bytes = scope.get("raw_path") or b""

    def header(self, name: bytes) -> bytes:
        """A header by its name in lower case; empty where it was not sent."""
        return self.headers.get(name, b"")

    @property
    def raw_path(self) -> bytes:
        """The path as it came, percent signs and all."""
        return self._raw_path or quote(self.path).encode()

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's parameters; of one that is repeated, the last."""
        return dict(self.parameters) if self.query_string else {}

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The query's parameters in their order, repetitions included."""
        return parse_qsl(self.query_string.decode("latin-1"), keep_blank_values=True)

    def flag(self, name: str) -> bool:
        """A parameter that is true or 1; BadRequest for what is no boolean."""
        value = self.query.get(name, "")
        if value.lower() not in {"", "0", "1", "f", "t", "false", "true"}:
            raise BadRequest(f"{name}={value}: not a boolean")
        return value.lower() in {"1", "t", "true"}

    def number(self, name: str) -> int | None:
        """A parameter that is a count; None where it was not given."""
        value = self.query.get(name, "")
        if not value:
            return None
        if not (value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS):
            raise BadRequest(f"{name}={value}: not a number")
        return int(value)

    async def body(self) -> bytes:
        """The whole body. RequestTooLarge above the limit."""
        announced = self.header(b"content-length")
        if announced.isdigit() and int(announced) > BODY_LIMIT:
            raise _too_large()
        chunks, size = [], 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise BadRequest("the connection was closed before the body was complete")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > BODY_LIMIT:
                raise _too_large()
            if not message.get("more_body"):
                return b"".join(chunks)

    @property
    def media_type(self) -> bytes:
        """What the body is; empty where that is not said."""
        return self.header(b"content-type").partition(b";")[0].strip().lower()

    async def json(self, *accepted: bytes) -> Any:
        """The body as a JSON document of one of these media types. UnsupportedMediaType, BadRequest."""
        if self.media_type and self.media_type not in accepted:
            listed = b", ".join(accepted).decode()
            raise UnsupportedMediaType(
                f"the body of the request was in an unknown format - accepted media types include: {listed}"
            )
        return parsed(await self.body())

    def require_json_accepted(self) -> None:
        """NotAcceptable where the client cannot read JSON."""
        accept = self.header(b"accept")
        if accept and not any(media_type in accept for media_type in ACCEPTABLE):
            raise NotAcceptable("only the following media types are accepted: application/json")


def parsed(body: bytes) -> Any:
    """A JSON document; BadRequest says where it breaks."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the request's body is not valid JSON: {error}") from error


@dataclass(frozen=True)
class Response:
    """A complete answer."""

    body: bytes
    status: int = 200
    media_type: bytes = JSON
    headers: Sequence[tuple[bytes, bytes]] = ()
    """More of them."""

    async def send(self, send: Send) -> None:
        """Write it out."""
        headers = [*self.headers, (b"content-type", self.media_type), (b"content-length", b"%d" % len(self.body))]
        if self.status == RequestTooLarge.code:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def document(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status)


def refusal(error: ApiError) -> Response:
    """An error as its Status."""
    return document(error.status(), error.code)


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"Request entity too large: limit is {BODY_LIMIT}")
