"""Exec: a program in a container over one WebSocket, subprotocol v5.channel.k8s.io (KEP-4006).

The first byte of every message names its channel. Channel 3 brings, last, a Status with the exit code.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from testbed.api.wellknown import EXEC_SUBPROTOCOL
from testbed.errors import ApiError, ServiceUnavailable, api_error

SUBPROTOCOL = Subprotocol(EXEC_SUBPROTOCOL)
OPEN_TIMEOUT_S = 30.0
"""For the handshake, behind which the API server and an agent make theirs; as long as for any other request."""
_CHUNK = 32 * 1024


class Channel(IntEnum):
    """The first byte of a message."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    STATUS = 3
    RESIZE = 4
    CLOSE = 255


@dataclass(frozen=True)
class ExecOutput:
    """A program that has ended, and all that it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class ExecStream:
    """A program while it runs: iterate for what it writes, as (channel, bytes); `exit_code` is there afterwards.

    Iterating raises the ApiError with which the server could not start it, and ServiceUnavailable where the
    connection broke before the program's end was told.
    """

    exit_code: int | None = None

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        tls: ssl.SSLContext | None,
        socket: Path | None,
        stdin: AsyncIterator[bytes] | None,
    ) -> None:
        self._url, self._headers, self._tls, self._socket = url, headers, tls, socket
        self._stdin = stdin
        self._pump: asyncio.Task[None] | None = None
        self._connection: ClientConnection | None = None

    async def __aenter__(self) -> Self:
        self._connection = await _connect(self._url, self._headers, self._tls, self._socket)
        if self._stdin is not None:
            self._pump = asyncio.create_task(self._send_all(self._stdin))
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._pump is not None:
                self._pump.cancel()
                with suppress(asyncio.CancelledError):
                    await self._pump  # raises what ended its input, if that was not us
        finally:
            await self._open().close()

    async def __aiter__(self) -> AsyncIterator[tuple[Channel, bytes]]:
        try:
            async for message in self._open():
                data = message.encode() if isinstance(message, str) else message
                match data[:1]:
                    case b"\x01" | b"\x02" if len(data) > 1:
                        yield Channel(data[0]), data[1:]
                    case b"\x03":
                        self.exit_code = exit_code(json.loads(data[1:]))
                        return
        except ConnectionClosed as error:
            raise ServiceUnavailable(f"the connection to the running program broke: {error}") from error
        raise ServiceUnavailable("the server closed the connection before the program's end was told")

    async def output(self) -> ExecOutput:
        """Wait for the end of the program and gather what it writes."""
        written: dict[Channel, list[bytes]] = {Channel.STDOUT: [], Channel.STDERR: []}
        async for channel, data in self:
            written[channel].append(data)
        assert self.exit_code is not None, "iteration ends with an exit code or raises"
        return ExecOutput(self.exit_code, b"".join(written[Channel.STDOUT]), b"".join(written[Channel.STDERR]))

    async def send(self, data: bytes) -> None:
        """Write to the program's standard input."""
        for start in range(0, len(data), _CHUNK):
            await self._open().send(bytes([Channel.STDIN]) + data[start : start + _CHUNK])

    async def close_stdin(self) -> None:
        """End of file on the program's standard input."""
        await self._open().send(bytes([Channel.CLOSE, Channel.STDIN]))

    async def resize(self, columns: int, rows: int) -> None:
        """The terminal has a new size."""
        size = json.dumps({"Width": columns, "Height": rows}).encode()
        await self._open().send(bytes([Channel.RESIZE]) + size)

    async def _send_all(self, chunks: AsyncIterator[bytes]) -> None:
        with suppress(ConnectionClosed):  # the program may end before it has read everything; iteration tells how
            async for chunk in chunks:
                await self.send(chunk)
            await self.close_stdin()

    def _open(self) -> ClientConnection:
        assert self._connection is not None, "used as `async with`"
        return self._connection


def exit_code(status: Mapping[str, Any]) -> int:
    """The exit code in the Status of channel 3; raises the ApiError for a program that could not be started."""
    if status.get("status") == "Success":
        return 0
    if status.get("reason") == "NonZeroExitCode":
        causes = (status.get("details") or {}).get("causes") or []
        return next((int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"), 1)
    raise api_error(status)


async def _connect(
    url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None, socket: Path | None
) -> ClientConnection:
    options: dict[str, Any] = {
        "subprotocols": [SUBPROTOCOL],
        "additional_headers": headers,
        "compression": None,
        "max_size": None,
        "open_timeout": OPEN_TIMEOUT_S,
    }
    try:
        if socket is not None:
            return await unix_connect(str(socket), url, **options)
        return await connect(url, ssl=tls, proxy=None, **options)
    except InvalidStatus as error:
        raise _refusal(error.response.status_code, bytes(error.response.body or b"")) from error
    except (InvalidHandshake, OSError, TimeoutError) as error:
        raise ServiceUnavailable(f"no WebSocket to {url.partition('?')[0]}: {error}") from error


def _refusal(code: int, body: bytes) -> ApiError:
    with suppress(ValueError):
        status = json.loads(body)
        if isinstance(status, dict) and status.get("kind") == "Status":
            return api_error(status)
    return api_error({"code": code, "message": f"exec was refused with HTTP {code}: {body.decode(errors='replace')}"})
