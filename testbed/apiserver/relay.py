"""Somebody else's answer on its way to the client: passed on as it comes, and given up when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from testbed.apiserver.exchange import Receive, Send
from testbed.client.connection import Connection, Exchange


@dataclass(frozen=True)
class Relay:
    """An exchange whose head has arrived, on a connection of its own."""

    connection: Connection
    exchange: Exchange
    receive: Receive
    """Of the client: tells when it leaves."""
    headers: Sequence[tuple[bytes, bytes]]
    """That the client gets."""
    is_bodiless: bool = False
    """The answer to a HEAD, whose body never comes."""

    async def send(self, send: Send) -> None:
        """Pass the answer on until it ends, its server goes or the client leaves."""
        listener = asyncio.get_running_loop().create_task(self._close_when_left())
        try:
            await send({"type": "http.response.start", "status": self.exchange.status, "headers": list(self.headers)})
            if not self.is_bodiless:
                with suppress(OSError):
                    async for chunk in self.exchange.chunks():
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            listener.cancel()
            self.connection.abort()

    async def _close_when_left(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.connection.abort()
