"""Programs run inside a container by the engine: one hijacked connection, taken apart into the three streams.

The SDK reads the engine's answer through a buffer that may swallow the first output, so the request is made here.
Frames of a program without a terminal: one byte of stream (1 stdout, 2 stderr), three of nothing, four of length, big
endian, then the data (Docker Engine API, "Attach to a container", stream format).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO, RawIOBase
from typing import Any

import docker
from docker.errors import APIError

from testbed.agent.docker_engine import explained
from testbed.errors import CommandFailed, NotFound
from testbed.waiting import wait_until

HEADER = struct.Struct(">BxxxL")
STDERR = 2
CHUNK = 1 << 16
ENDED_WITHIN_S = 10.0
"""After its streams have ended, the engine knows of the program's end within moments."""


class DockerExec:
    """agent.sandbox.ExecSession over the Docker engine that listens at the Unix socket `path`."""

    def __init__(
        self, engine: docker.DockerClient, path: str, container_id: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> None:
        self._engine = engine
        self._id = _created(engine, container_id, argv, stdin=stdin, tty=tty)
        self._connection = _hijacked(path, f"/v{engine.api.api_version}/exec/{self._id}/start", {"Tty": tty})
        out, self._out = os.pipe()
        self.stdout: RawIOBase = FileIO(out)
        self.stdin: RawIOBase | None = _Input(self._connection, ends=not tty) if stdin else None
        self.stderr: RawIOBase | None = None
        self._err = -1
        if not tty:
            err, self._err = os.pipe()
            self.stderr = FileIO(err)
        self._ended = threading.Event()
        threading.Thread(target=self._pump, args=(tty,), name=f"exec {container_id[:12]}", daemon=True).start()

    def resize(self, columns: int, rows: int) -> None:
        """The terminal's size; a program that has ended has none."""
        with suppress(APIError):
            self._engine.api.exec_resize(self._id, height=rows, width=columns)

    def wait(self) -> int:
        """The exit code, when it has ended."""
        self._ended.wait()
        ended = wait_until(self._end, ENDED_WITHIN_S, "the end of a program in a container")
        return int(ended["ExitCode"])

    def kill(self) -> None:
        """End it: the engine offers no way, but tells its pid on the host, whose processes the agent sees."""
        state = wait_until(self._beginning, ENDED_WITHIN_S, "the start of a program in a container")
        if state["ExitCode"] is None:
            with suppress(ProcessLookupError):
                os.kill(state["Pid"], signal.SIGKILL)
        self._cut()

    def _cut(self) -> None:
        """End every read and write of the connection; it may have ended already."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _beginning(self) -> dict[str, Any] | None:
        state = self._look()
        return state if state["Pid"] or state["ExitCode"] is not None else None

    def _end(self) -> dict[str, Any] | None:
        state = self._look()
        return state if state["ExitCode"] is not None and not state["Running"] else None

    def _look(self) -> dict[str, Any]:
        with explained("looking for a program in a container"):
            state: dict[str, Any] = self._engine.api.exec_inspect(self._id)
        return state

    def _pump(self, tty: bool) -> None:
        """Move the program's output into the pipes until it ends, or nobody reads any more."""
        try:
            with self._connection.makefile("rb", buffering=0) as stream:
                self._copy(stream) if tty else self._demultiplex(stream)
        except OSError:
            pass  # the reader has gone, or `kill` has cut the connection
        finally:
            for fd in (self._out, self._err):
                if fd >= 0:
                    os.close(fd)
            self._cut()
            self._connection.close()
            self._ended.set()

    def _copy(self, stream: Any) -> None:
        while data := stream.read(CHUNK):
            _write(self._out, data)

    def _demultiplex(self, stream: Any) -> None:
        while header := _exactly(stream, HEADER.size):
            kind, length = HEADER.unpack(header)
            while length and (data := stream.read(min(length, CHUNK))):
                _write(self._err if kind == STDERR else self._out, data)
                length -= len(data)


class _Input(RawIOBase):
    """What is written goes to the program; closed, the program reads its end of file.

    On a terminal there is no such thing, and the engine would take the end of the input for the end of the session.
    """

    def __init__(self, connection: socket.socket, *, ends: bool) -> None:
        self._connection = connection
        self._ends = ends

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            self._connection.sendall(data)
        except OSError as error:  # closed here, or there
            raise BrokenPipeError(error.errno, "the program has ended") from None
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self._ends:
                with suppress(OSError):  # the program has ended
                    self._connection.shutdown(socket.SHUT_WR)


def _created(engine: docker.DockerClient, container_id: str, argv: Sequence[str], *, stdin: bool, tty: bool) -> str:
    with explained("running a program in a container"):
        try:
            created = engine.api.exec_create(
                container_id, list(argv), stdin=stdin, tty=tty, environment={"TERM": "xterm"} if tty else None
            )
        except APIError as error:
            if error.status_code in (404, 409):
                raise NotFound(f"container {container_id[:12]} does not run") from None
            raise
    return str(created["Id"])


def _hijacked(path: str, url: str, body: dict[str, Any]) -> socket.socket:
    """A connection on which, after the engine's answer, both directions belong to the program."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
        text = json.dumps(body).encode()
        head = f"POST {url} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        connection.sendall(
            f"{head}Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text
        )
        _expect_upgrade(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _expect_upgrade(connection: socket.socket) -> None:
    """Read the answer's head and not a byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (byte := connection.recv(1)):
            break
        head += byte
    status = head.partition(b"\r\n")[0].decode(errors="replace")
    if status.split()[1:2] not in (["101"], ["200"]):
        raise CommandFailed(f"the engine does not run the program: {status} {connection.recv(CHUNK).decode().strip()}")


def _exactly(stream: Any, size: int) -> bytes:
    """`size` bytes, or nothing at the end."""
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data if len(data) == size else b""


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
