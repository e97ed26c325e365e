"""HTTP/1.1 for one server: kept connections, one exchange at a time on each; llhttp parses what comes.

Not httpx, whose layers cost ten times the CPU of a request, and whose import takes 85 ms and 8 MB in every daemon: 200
pods that come up are over a thousand requests.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from httptools import HttpParserError, HttpResponseParser

CONNECT_TIMEOUT_S = 5.0
MOST_IDLE = 32
HIGH_WATER = 256 * 1024
"""Bytes of a stream that may wait for their reader before the server is kept waiting."""
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
"""A control plane whose namespace is gone sends no reset: it is noticed after 5 + 3 * 2 seconds."""


class StaleConnection(ConnectionError):
    """A kept connection turned out to be closed: the request may never have been seen."""


@dataclass(frozen=True)
class Server:
    """Where to connect: a Unix socket, or host and port, with TLS where there is a context."""

    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None
    socket: Path | None = None

    async def connect(self) -> Connection:
        """A new connection. OSError, TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if self.socket is not None:
                return (await loop.create_unix_connection(Connection, str(self.socket)))[1]
            return (await loop.create_connection(Connection, self.host, self.port, ssl=self.tls))[1]


class Exchange:
    """One answer while it arrives. The `on_` methods are the parser's."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.status = 0
        """The HTTP status; 0 until the head has arrived."""
        self.is_complete = False
        self.headers: list[tuple[bytes, bytes]] = []
        """As they came, with the head."""
        self.keeps_alive = False
        """Whether the server lets another exchange follow on the connection."""
        self.parser: Any = HttpResponseParser(self)
        self._transport = transport
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._error: Exception | None = None
        self._news: asyncio.Future[None] | None = None

    async def head(self) -> int:
        """The status, as soon as it is known."""
        while not self.status:
            await self._more()
        return self.status

    async def body(self) -> bytes:
        """The whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, as it comes."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._waiting -= len(chunk)
                yield chunk
            if self.is_complete:
                return
            self._transport.resume_reading()
            await self._more()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of the headers."""
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head has arrived."""
        self.status, self.keeps_alive = self.parser.get_status_code(), self.parser.should_keep_alive()

    def on_body(self, chunk: bytes) -> None:
        """More of the body."""
        self._chunks.append(chunk)
        self._waiting += len(chunk)
        if self._waiting > HIGH_WATER:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The end of the answer."""
        self.is_complete = True
        self.parser = None  # which holds this object: together they would wait for the garbage collector

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        self._error = error
        self.wake()

    def wake(self) -> None:
        """Tell the reader that there is news."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._news = asyncio.get_running_loop().create_future()
        await self._news


class Connection(asyncio.Protocol):
    """One connection, kept between exchanges."""

    def __init__(self) -> None:
        self.is_open = False
        self._served = 0
        self._exchange: Exchange | None = None

    def send(self, request: bytes) -> Exchange:
        """Begin an exchange; the one before is complete."""
        self._exchange = Exchange(self._transport)
        self._served += 1
        self._transport.resume_reading()  # the answer before may have ended above the mark
        self._transport.write(request)
        return self._exchange

    def is_reusable(self) -> bool:
        """Whether another exchange may follow: the last one is complete, and neither side closes."""
        exchange = self._exchange
        return self.is_open and (exchange is None or (exchange.is_complete and exchange.keeps_alive))

    def abort(self) -> None:
        """Close without a word."""
        if self.is_open:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is there."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True
        wire = transport.get_extra_info("socket")
        if wire.family != socket.AF_UNIX:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEP_ALIVE:
                wire.setsockopt(socket.IPPROTO_TCP, option, value)

    def data_received(self, data: bytes) -> None:
        """asyncio: something has come."""
        exchange = self._exchange
        if exchange is None or exchange.is_complete:
            self.abort()  # nobody asked
            return
        try:
            exchange.parser.feed_data(data)
        except HttpParserError as error:
            exchange.fail(ConnectionError(f"the server does not speak HTTP/1.1: {error}"))
            self.abort()
            return
        exchange.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection has gone."""
        self.is_open = False
        exchange = self._exchange
        if exchange is not None and not exchange.is_complete:
            kind = StaleConnection if self._served > 1 and not exchange.status else ConnectionError
            exchange.fail(kind(str(exc or "the server closed the connection")))


class Connections:
    """The connections to one server."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    async def fetch(self, request: bytes, *, timeout_s: float, is_safe: bool) -> tuple[int, bytes]:
        """Status and body. OSError, TimeoutError. Only a safe request (RFC 9110, 9.2.1) is sent again where a kept
        connection was found closed."""
        async with asyncio.timeout(timeout_s):
            try:
                return await self._fetch(request)
            except StaleConnection:
                if not is_safe:
                    raise
                self._close(self._idle)
                return await self._fetch(request)

    @asynccontextmanager
    async def exchange(self, request: bytes) -> AsyncIterator[Exchange]:
        """An exchange; the connection is kept if it was read to its end, and closed otherwise."""
        connection = await self._take()
        try:
            yield connection.send(request)
        finally:
            if connection.is_reusable() and len(self._idle) < MOST_IDLE:
                self._idle.append(connection)
            else:
                self._close([connection])

    def close(self) -> None:
        """Close all of them."""
        self._close(list(self._all))

    async def _fetch(self, request: bytes) -> tuple[int, bytes]:
        async with self.exchange(request) as exchange:
            return await exchange.head(), await exchange.body()

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable():
                return connection
            self._close([connection])
        connection = await self._connect()
        self._all.add(connection)
        return connection

    def _close(self, connections: list[Connection]) -> None:
        for connection in connections:
            connection.abort()
        self._all.difference_update(connections)
        self._idle = [connection for connection in self._idle if connection in self._all]
