"""Listeners: one application on a Unix socket, on sockets that were handed over, and on TCP with TLS.

uvicorn's protocols are used without its server object, which serves one address, installs signal handlers of its own
and wakes up ten times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

if TYPE_CHECKING:
    from testbed.apiserver.http import ApiServer

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 3600
"""An idle connection costs nothing, and closing it would race with the client's next request."""
DRAIN_S = 2.0
"""How long requests under way may take to end when the server does."""
BACKLOG = 1024
ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""Set on listeners, inherited by connections. A peer whose network namespace is gone sends no FIN: its watches end
after 15 + 3 * 5 seconds."""


class Listeners:
    """Where one application is served. `close` ends all of it."""

    def __init__(self, app: ApiServer) -> None:
        config = Config(
            app,
            log_config=None,
            access_log=False,
            http="httptools",
            ws=_websocket_protocol,  # type: ignore[arg-type]  # any factory does
            lifespan="off",
            interface="asgi3",
            timeout_keep_alive=KEEP_ALIVE_S,
            server_header=False,
            date_header=False,
            ws_max_size=1 << 30,
            ws_per_message_deflate=False,
        )
        config.load()
        self._state = ServerState()
        self._factory = partial(HttpToolsProtocol, config=config, server_state=self._state, app_state={})
        self._servers: list[asyncio.AbstractServer] = []

    async def listen_unix(self, path: Path) -> None:
        """Plain HTTP on a Unix socket, which only this user may open; what is left of an earlier one is replaced."""
        await self.listen_plain(_bound_unix(path))

    async def listen_plain(self, listener: socket.socket) -> None:
        """Plain HTTP on a bound Unix socket."""
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_unix_server(self._factory, sock=listener, backlog=BACKLOG))
        log.info("serving on unix://%s", listener.getsockname())

    async def listen_tls(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        """HTTPS on a bound TCP socket."""
        for option in ALIVE:
            listener.setsockopt(*option)
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(self._factory, sock=listener, ssl=tls, backlog=BACKLOG))
        log.info("serving on https://%s:%s", *listener.getsockname()[:2])

    async def close(self) -> None:
        """Stop listening, let requests under way end for a moment, hang up."""
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if tasks := list(self._state.tasks):
            _, late = await asyncio.wait(tasks, timeout=DRAIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in list(self._state.connections):
            if connection.transport is not None:
                connection.transport.abort()


def quiet_uvicorn() -> None:
    """Let uvicorn log what is wrong, and not that an exec was refused, which it takes for a mistake of ours."""
    logger = logging.getLogger("uvicorn.error")
    logger.setLevel(logging.WARNING)
    logger.addFilter(lambda record: "without completing handshake" not in record.getMessage())


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a TLS listener presents."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def bound(address: str, port: int) -> socket.socket:
    """A listening socket's beginning: bound, and free again at once when the server ends."""
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        undo.pop_all()
    return listener


def _bound_unix(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


def _websocket_protocol(**options: Any) -> asyncio.Protocol:
    """Imported by the first WebSocket: that costs as much as the whole start of the server."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(**options)
