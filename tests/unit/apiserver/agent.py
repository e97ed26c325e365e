"""A host agent of few words: TLS, the kubelet's paths for logs and exec, what it was asked."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from testbed.api.objects import Object
from testbed.apiserver.agents import Agents
from testbed.apiserver.serving import tls_context
from testbed.runtime.bootstrap import write_bootstrap
from tests.unit.apiserver.parts import SPEC

PROTOCOL = Subprotocol("v5.channel.k8s.io")


@dataclass
class Agent:
    """Answers exec with an echo of channel 0 on channel 1, and logs with a line."""

    port: int = 0
    breaks_off: bool = False
    is_deaf: bool = False
    """A program that ends at once and reads nothing."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """An exec is over."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and Authorization of each request."""

    async def exec(self, connection: ServerConnection) -> None:
        """Echo until told to end, then say how it ended."""
        if self.breaks_off:
            connection.transport.abort()
        if self.is_deaf:
            await connection.send(b"\x03" + orjson.dumps({"status": "Success"}))
            return
        with suppress(ConnectionClosed):
            await self._echo(connection)
        self.ended.set()

    async def _echo(self, connection: ServerConnection) -> None:
        async for message in connection:
            assert isinstance(message, bytes)
            if message == bytes([255, 0]):
                await connection.send(b"\x03" + orjson.dumps({"status": "Success"}))
                return
            await connection.send(b"\x01" + message[1:])

    def plain(self, _connection: ServerConnection, request: Request) -> Response | None:
        """Log requests are answered at once; the rest goes on as WebSockets."""
        self.asked.append((request.path, request.headers.get("Authorization", "")))
        if not request.path.startswith("/containerLogs/"):
            return None
        if "/absent/" in request.path:
            status = {
                "kind": "Status",
                "status": "Failure",
                "reason": "NotFound",
                "code": 404,
                "message": "no such pod",
            }
            return _response(404, "Not Found", orjson.dumps(status))
        return _response(200, "OK", b"one\ntwo\n")


def _response(code: int, reason: str, body: bytes) -> Response:
    return Response(code, reason, Headers({"Content-Length": str(len(body)), "Connection": "close"}), body)


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[tuple[Agent, Agents]]:
    """An agent on 127.0.0.1, and what the API server needs to reach it. Certificates are made in `directory`."""
    write_bootstrap(directory, SPEC)
    agent = Agent()
    tls = tls_context(directory / "apiserver.crt", directory / "apiserver.key")
    async with serve(
        agent.exec, "127.0.0.1", 0, ssl=tls, subprotocols=[PROTOCOL], process_request=agent.plain, compression=None
    ) as server:
        agent.port = next(iter(server.sockets)).getsockname()[1]
        yield agent, Agents(ssl.create_default_context(cafile=str(directory / "ca.crt")), "agents-token")


def node(port: int) -> Object:
    """A Node whose agent listens there."""
    endpoint = {"Address": "127.0.0.1", "Port": port}
    status = {"daemonEndpoints": {"kubeletEndpoint": endpoint}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": status}


async def dead_port() -> int:
    """A port at which nobody listens."""
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
