"""Programs run by the engine, against an engine that says exactly what the test wants."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest

from testbed.agent.docker_exec import DockerExec
from testbed.errors import CommandFailed

UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


class ScriptedEngine:
    """Answers every exec with the same bytes, and keeps what the program is sent.

    The program ends with its answer, or (`reads_on`) with its input.
    """

    def __init__(self, path: Path, answer: bytes, exit_code: int = 0, *, reads_on: bool = False) -> None:
        self.path = path
        self.request = b""
        self.sent = b""
        self._answer = answer
        self._reads_on = reads_on
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._state = {"ExitCode": exit_code, "Running": False, "Pid": 1}
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def execute(self, *, stdin: bool = False, tty: bool = False) -> DockerExec:
        """A program."""
        api = SimpleNamespace(
            api_version="1.41",
            exec_create=lambda *_, **__: {"Id": "e1"},
            exec_inspect=lambda _: self._state,
        )
        engine = cast(docker.DockerClient, SimpleNamespace(api=api))
        return DockerExec(engine, str(self.path), "c1", ["program"], stdin=stdin, tty=tty)

    def close(self) -> None:
        """Wait until everything was served."""
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, suppress(ConnectionResetError):
            while not self.request.endswith(b"}"):
                self.request += connection.recv(1000)
            connection.sendall(self._answer)
            if not self._reads_on:
                connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(1 << 16):
                self.sent += data


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Any]:
    engines: list[ScriptedEngine] = []

    def make(answer: bytes, exit_code: int = 0, *, reads_on: bool = False) -> ScriptedEngine:
        engines.append(ScriptedEngine(tmp_path / "engine.sock", answer, exit_code, reads_on=reads_on))
        return engines[0]

    yield make
    for engine in engines:
        engine.close()


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


def drained(program: DockerExec) -> tuple[bytes, bytes]:
    out = program.stdout.readall()
    err = program.stderr.readall() if program.stderr else b""
    program.stdout.close()
    if program.stderr:
        program.stderr.close()
    return out or b"", err or b""


def test_frames_become_two_streams_and_an_exit_code(scripted: Any) -> None:
    program = scripted(UPGRADED + frame(1, b"one ") + frame(2, b"oops") + frame(1, b"two"), exit_code=3).execute()
    assert drained(program) == (b"one two", b"oops")
    assert program.wait() == 3
    program.kill()


def test_output_that_came_with_the_answer_is_not_lost(scripted: Any) -> None:
    program = scripted(UPGRADED + frame(1, b"early")).execute()
    assert drained(program)[0] == b"early"
    program.kill()


def test_a_terminal_has_one_stream_without_frames(scripted: Any) -> None:
    engine = scripted(UPGRADED + b"$ ")
    program = engine.execute(tty=True)
    assert program.stderr is None
    assert drained(program) == (b"$ ", b"")
    assert b'{"Tty": true}' in engine.request
    program.kill()


def test_what_is_written_reaches_the_program_up_to_its_end(scripted: Any) -> None:
    engine = scripted(UPGRADED, reads_on=True)
    program = engine.execute(stdin=True)
    assert program.stdin is not None
    program.stdin.write(b"hello")
    program.stdin.close()
    engine.close()
    assert engine.sent == b"hello"
    drained(program)


def test_a_frame_cut_short_ends_the_streams(scripted: Any) -> None:
    program = scripted(UPGRADED + frame(1, b"whole") + b"\x01\x00\x00").execute()
    assert drained(program)[0] == b"whole"
    program.kill()


def test_a_refusal_is_told_in_the_engines_words(scripted: Any) -> None:
    with pytest.raises(CommandFailed, match=r"409 Conflict.*is paused"):
        scripted(b"HTTP/1.1 409 Conflict\r\n\r\ncontainer is paused").execute()
