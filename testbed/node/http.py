"""The smallest HTTP server that will do: GET and HEAD, one request to a connection, on a socket that listens already.

It is asyncio and nothing else, because a node daemon's memory counts, and because its sockets are opened in namespaces
that a server library would have to be led into.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from testbed.errors import ApiError, BadRequest, MethodNotAllowed, TestbedError

log = logging.getLogger(__name__)

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
HEAD_WITHIN_S = 10.0
MOST_HEAD = 16 * 1024


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    query: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What is said."""

    body: str
    status: int = 200
    media_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


Respond = Callable[[Request], Awaitable[Answer]]
"""A TestbedError that it raises is answered as a Kubernetes Status."""


def document(value: Any, status: int = 200, headers: Mapping[str, str] = NO_SNIFFING) -> Answer:
    """A JSON answer."""
    return Answer(json.dumps(value), status, JSON, headers)


@asynccontextmanager
async def serving(listener: socket.socket, respond: Respond) -> AsyncIterator[None]:
    """Answer whoever connects, until the block ends; the socket is closed then."""
    with listener:
        server = await asyncio.start_server(partial(_serve_client, respond), sock=listener, limit=MOST_HEAD)
        try:
            yield
        finally:
            server.close()


async def _serve_client(respond: Respond, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(HEAD_WITHIN_S):
            head = await reader.readuntil(b"\r\n\r\n")
        writer.write(await _response(respond, head))
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        log.debug("a client has gone: %s", error)
    finally:
        writer.close()


async def _response(respond: Respond, head: bytes) -> bytes:
    is_bodiless = head.startswith(b"HEAD ")
    try:
        answer = await respond(parse(head))
    except TestbedError as error:
        refusal = error if isinstance(error, ApiError) else ApiError(str(error))
        answer = document(refusal.status(), refusal.code)
    return _encoded(answer, is_bodiless=is_bodiless)


def parse(head: bytes) -> Request:
    """A request's head. BadRequest for what is no HTTP, MethodNotAllowed for what is neither GET nor HEAD."""
    try:
        method, target, _ = head.decode("latin-1").partition("\r\n")[0].split(" ")
        url = urlsplit(target)
    except ValueError as error:
        raise BadRequest(f"not an HTTP request: {error}") from error
    if method not in ("GET", "HEAD"):
        raise MethodNotAllowed(f"only GET and HEAD are answered here, not {method}")
    return Request(method, unquote(url.path), dict(parse_qsl(url.query, keep_blank_values=True)))


def _encoded(answer: Answer, *, is_bodiless: bool) -> bytes:
    body = answer.body.encode()
    headers = {
        "Content-Type": answer.media_type,
        "Content-Length": str(len(body)),
        "Connection": "close",
        **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if is_bodiless else body)
