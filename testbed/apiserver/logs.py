"""Container logs: the agent's answer, passed on as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httptools

from testbed.api.objects import Object
from testbed.apiserver.agents import Agents, agent_of, agent_path, container_of, refused, unreachable
from testbed.apiserver.exchange import TEXT, Receive, Request, Send
from testbed.apiserver.resources import Resources
from testbed.errors import ApiError, ServiceUnavailable

FLAGS = ("follow", "previous", "timestamps")
NUMBERS = ("limitBytes", "sinceSeconds", "tailLines")
_CHUNK = 64 << 10


class _Parts:
    """What httptools' parser calls back with, of one response."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.has_headers = False
        self.is_complete = False

    def on_headers_complete(self) -> None:
        self.has_headers = True

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)

    def on_message_complete(self) -> None:
        self.is_complete = True

    def taken(self) -> bytes:
        """What has come since the last call."""
        chunks, self.chunks = self.chunks, []
        return b"".join(chunks)


@dataclass(frozen=True)
class AgentResponse:
    """An HTTP/1.1 response that is still being read."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    parts: _Parts
    parser: Any

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.parser.get_status_code())

    async def read_headers(self) -> None:
        """Return when the headers are in. ServiceUnavailable where they do not come."""
        while not self.parts.has_headers:
            if not await self._feed():
                raise ServiceUnavailable("error dialing backend: the agent closed the connection without an answer")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, as it comes; it ends with the response, or with the connection."""
        while True:
            if body := self.parts.taken():
                yield body
            if self.parts.is_complete or not await self._feed():
                break
        if body := self.parts.taken():
            yield body

    def close(self) -> None:
        """Hang up."""
        self.writer.close()

    async def _feed(self) -> bool:
        try:
            data = await self.reader.read(_CHUNK)
            if data:
                self.parser.feed_data(data)
        except (OSError, httptools.HttpParserError):
            return False
        return bool(data)


@dataclass(frozen=True)
class LogStream:
    """A log on its way to the client."""

    response: AgentResponse
    receive: Receive

    async def send(self, send: Send) -> None:
        """Pass the log on until it ends or the client leaves."""
        listener = asyncio.get_running_loop().create_task(self._close_when_left())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", TEXT)]})
            async for chunk in self.response.chunks():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            listener.cancel()
            self.response.close()

    async def _close_when_left(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.response.close()


async def open_log(agents: Agents, resources: Resources, pod: Object, request: Request) -> LogStream:
    """The log of one container, from the agent that runs it; the agent's refusal as an ApiError."""
    path = agent_path(pod, container_of(pod, request.query.get("container", "")), "containerLogs")
    response = await _asked(agents, *agent_of(resources, pod), f"{path}?{urlencode(_options(request))}")
    if response.status == 200:
        return LogStream(response, request.receive)
    body = b"".join([chunk async for chunk in response.chunks()])
    response.close()
    raise refused(response.status, body)


def _options(request: Request) -> dict[str, str]:
    """What the client asks of the log, spelled in one way."""
    options = {name: "true" for name in FLAGS if request.flag(name)}
    options |= {name: str(number) for name in NUMBERS if (number := request.number(name)) is not None}
    return options | {name: request.query[name] for name in ("sinceTime",) if name in request.query}


async def _asked(agents: Agents, address: str, port: int, path: str) -> AgentResponse:
    reader, writer = await agents.connect(address, port)
    lines = [f"GET {path} HTTP/1.1", f"Host: {address}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in agents.headers.items()]
    parts = _Parts()
    response = AgentResponse(reader, writer, parts, httptools.HttpResponseParser(parts))
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await writer.drain()
        await response.read_headers()
    except OSError as error:
        response.close()
        raise unreachable(address, port, error) from error
    except ApiError:
        response.close()
        raise
    return response
