"""Exec over a WebSocket, subprotocol v5.channel.k8s.io: the first byte of a message names its channel (KEP-4006).

0 stdin   1 stdout   2 stderr   3 the Status that ends it   4 the terminal's size   255 a channel is closed
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import suppress
from io import RawIOBase
from typing import Any

from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from testbed.agent.sandbox import ExecSession
from testbed.api.wellknown import EXEC_SUBPROTOCOL
from testbed.errors import ApiError, TestbedError

SUBPROTOCOL = Subprotocol(EXEC_SUBPROTOCOL)
STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
BLOCK = 1 << 16


class WebSocket:
    """The server's end of a WebSocket over a stream whose request has been read already."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = ServerProtocol(subprotocols=[SUBPROTOCOL], max_size=None)

    async def accept(self, head: bytes) -> bool:
        """Answer the upgrade; False where it was refused."""
        self._protocol.receive_data(head)
        request = next(event for event in self._protocol.events_received() if isinstance(event, Request))
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        await self._flush()
        return response.status_code == 101

    async def send(self, channel: int, data: bytes) -> None:
        """One message."""
        self._protocol.send_binary(bytes([channel]) + data)
        await self._flush()

    async def messages(self) -> AsyncIterator[bytes]:
        """Messages as they come, until the client has gone."""
        message = b""
        while data := await self._reader.read(BLOCK):
            self._protocol.receive_data(data)
            for frame in self._protocol.events_received():
                assert isinstance(frame, Frame), "the request came first"
                if frame.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                    message += frame.data
                    if frame.fin:
                        yield message
                        message = b""
                elif frame.opcode is Opcode.CLOSE:
                    return
            await self._flush()

    async def close(self) -> None:
        """Say goodbye."""
        self._protocol.send_close(1000)
        await self._flush()

    async def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._writer.write(data)
        await self._writer.drain()


async def run_session(socket: WebSocket, session: ExecSession, threads: Executor) -> None:
    """Carry a program's streams until it has ended, and tell how; when the client goes first, end the program."""
    loop = asyncio.get_running_loop()

    async def pump(stream: RawIOBase, channel: int) -> None:
        while data := await loop.run_in_executor(threads, stream.read, BLOCK):
            await socket.send(channel, data)

    listening = asyncio.create_task(_listen(socket, session, threads))
    streams = [(session.stdout, STDOUT), *([(session.stderr, STDERR)] if session.stderr else [])]
    pumping = asyncio.gather(*(pump(stream, channel) for stream, channel in streams))
    try:
        await asyncio.wait((listening, pumping), return_when=asyncio.FIRST_COMPLETED)
        if not pumping.done():
            session.kill()
        with suppress(ConnectionError):
            await pumping
            code = await loop.run_in_executor(threads, session.wait)
            await socket.send(STATUS, json.dumps(exit_status(code)).encode())
            await socket.close()
    finally:
        listening.cancel()
        for stream in (session.stdin, session.stdout, session.stderr):
            if stream:
                stream.close()


def exit_status(code: int) -> dict[str, Any]:
    """The Status that tells an exit code."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failure_status(error: TestbedError) -> dict[str, Any]:
    """The Status that tells why a program could not be started."""
    return (error if isinstance(error, ApiError) else ApiError(str(error))).status()


async def _listen(socket: WebSocket, session: ExecSession, threads: Executor) -> None:
    """What the client sends. After the end of its input it may still watch; returns when it has gone."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError, ProtocolError):
        async for message in socket.messages():
            match message[:1]:
                case b"\x00" if session.stdin and not session.stdin.closed:
                    with suppress(BrokenPipeError):  # the program may end, or close its input, before it has read all
                        await loop.run_in_executor(threads, _write_all, session.stdin, message[1:])
                case b"\x04":
                    size = json.loads(message[1:])
                    session.resize(size["Width"], size["Height"])
                case b"\xff" if message[1:2] == b"\x00" and session.stdin:
                    session.stdin.close()


def _write_all(stream: RawIOBase, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[stream.write(view) or 0 :]
