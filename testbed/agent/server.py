"""The agent's own door, port 10250: what the API server asks of the host that runs a pod. The kubelet's paths.

    GET /containerLogs/NAMESPACE/POD/CONTAINER?follow=true&tailLines=N&previous=true
    GET /exec/NAMESPACE/POD/CONTAINER?command=…&stdin=1&stdout=1&stderr=1&tty=1      (WebSocket)

One request a connection, in HTTP/1.1 over TLS; a log is sent as it grows. Everything needs the bearer token.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from testbed.agent.sandbox import ContainerState, Sandboxes
from testbed.api.objects import Key
from testbed.errors import ApiError, BadRequest, MethodNotAllowed, NotFound, TestbedError, Unauthorized

log = logging.getLogger(__name__)

BLOCK = 1 << 16
STREAM_THREADS = 256
TRUE = ("1", "true")


class Find(Protocol):
    """See Pods.find."""

    def __call__(self, which: Key, container: str, *, previous: bool = False) -> ContainerState:
        """NotFound."""
        ...


@dataclass(frozen=True)
class Request:
    """A request's head, taken apart. `raw` is what came."""

    method: str
    path: tuple[str, ...]
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    raw: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Request:
        """BadRequest for what is no HTTP."""
        try:
            first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
            method, target, _ = first.split(" ")
            headers = dict(line.split(":", 1) for line in lines)
        except ValueError as error:
            raise BadRequest(f"not an HTTP request: {error}") from error
        url = urlsplit(target)
        path = tuple(unquote(part) for part in url.path.strip("/").split("/"))
        query = parse_qs(url.query, keep_blank_values=True)
        return cls(method, path, query, {name.lower(): value.strip() for name, value in headers.items()}, raw)

    def flag(self, name: str) -> bool:
        """Whether a parameter is given as true."""
        return self.query.get(name, [""])[0] in TRUE

    def number(self, name: str) -> int | None:
        """A parameter that is a number; None where it is not given. BadRequest."""
        if name not in self.query:
            return None
        text = self.query[name][0]
        if not text.isdecimal():
            raise BadRequest(f"{name}={text} is not a number")
        return int(text)


class AgentServer:
    """Serves logs and exec of the containers that `find` finds."""

    def __init__(self, find: Find, sandboxes: Sandboxes, token: str) -> None:
        self._find = find
        self._sandboxes = sandboxes
        self._token = token
        self._threads = ThreadPoolExecutor(STREAM_THREADS, "stream")
        self._actions: dict[str, Callable[[Request, ContainerState, Connection], Awaitable[None]]] = {
            "containerLogs": self._send_log, "exec": self._execute,
        }  # fmt: skip

    async def serve(self, address: str, port: int, tls: ssl.SSLContext) -> None:
        """Serve until cancelled."""
        server = await asyncio.start_server(self.serve_client, address, port, ssl=tls)
        async with server:
            await server.serve_forever()

    async def serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        connection = Connection(reader, writer)
        try:
            request = Request.parse(await reader.readuntil(b"\r\n\r\n"))
            try:
                await self._answer(request, connection)
            except TestbedError as error:
                log.info("%s refused: %s", "/".join(request.path), error)
                await connection.refuse(error if isinstance(error, ApiError) else ApiError(str(error)))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, BadRequest) as error:
            log.info("a client has gone: %s", error)
        finally:
            writer.close()

    async def _answer(self, request: Request, connection: Connection) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Unauthorized("Unauthorized")
        if request.method != "GET":
            raise MethodNotAllowed(f"the agent answers GET only, not {request.method}")
        action = self._actions.get(request.path[0])
        if action is None or len(request.path) != 4:
            raise NotFound(f"no such path: /{'/'.join(request.path)}")
        _, namespace, pod, container = request.path
        await action(request, self._find(Key(namespace, pod), container, previous=request.flag("previous")), connection)

    async def _send_log(self, request: Request, state: ContainerState, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        stream = self._sandboxes.read_log(state.id, tail=request.number("tailLines"), follow=request.flag("follow"))
        leaving = asyncio.create_task(connection.until_left())
        leaving.add_done_callback(lambda _: stream.close())
        try:
            await connection.start_body()
            while not leaving.done() and (data := await loop.run_in_executor(self._threads, stream.read, BLOCK)):
                await connection.send_chunk(data)
            await connection.end_body()
        finally:
            leaving.cancel()
            stream.close()

    async def _execute(self, request: Request, state: ContainerState, connection: Connection) -> None:
        from testbed.agent import execstream  # websockets is loaded for the first exec, not for every start

        argv = request.query.get("command")
        if not argv:
            raise BadRequest("exec needs at least one command= parameter")
        socket = execstream.WebSocket(connection.reader, connection.writer)
        if not await socket.accept(request.raw):
            return
        loop, stdin, tty = asyncio.get_running_loop(), request.flag("stdin"), request.flag("tty")
        try:
            session = await loop.run_in_executor(
                self._threads, lambda: self._sandboxes.exec(state.id, argv, stdin=stdin, tty=tty)
            )
        except TestbedError as error:
            await socket.send(execstream.STATUS, json.dumps(execstream.failure_status(error)).encode())
            await socket.close()
            return
        await execstream.run_session(socket, session, self._threads)


@dataclass(frozen=True)
class Connection:
    """The way back to a client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def refuse(self, error: ApiError) -> None:
        """Send the error as a Status."""
        body = json.dumps(error.status()).encode()
        head = f"HTTP/1.1 {error.code} {error.reason}\r\nContent-Type: application/json\r\n"
        await self._send(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)

    async def start_body(self) -> None:
        """A plain text of unknown length follows."""
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        await self._send(head.encode())

    async def send_chunk(self, data: bytes) -> None:
        """A part of it (RFC 9112, 7.1)."""
        await self._send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end_body(self) -> None:
        """Its end."""
        await self._send(b"0\r\n\r\n")

    async def until_left(self) -> None:
        """Return when the client closes its side."""
        with suppress(OSError):
            while await self.reader.read(BLOCK):
                pass

    async def _send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
