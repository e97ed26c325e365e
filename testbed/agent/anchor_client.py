"""Speaking to an anchor: a connection for each call, so any thread may call at any time."""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import testbed.errors
from testbed.agent.anchor_wire import Inbox, Message, encode
from testbed.errors import NotFound, TestbedError, TimedOut

ANSWER_WITHIN_S = 30.0


@dataclass(frozen=True)
class Process:
    """A process of the anchor. `pid` is in the anchor's pid namespace, 0 when it has ended; times are epoch seconds."""

    id: str
    labels: Mapping[str, str]
    pid: int
    started: float
    finished: float
    exit_code: int | None
    reason: str
    restarts: int


class Execution:
    """A program that runs inside a process' namespaces, for as long as this is open."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._is_killed = False

    def wait(self) -> int:
        """Its exit code (128 + N where signal N ended it), when it has ended."""
        try:
            code: int = self._connection.receive()["exit_code"]
        except NotFound:
            if not self._is_killed:
                raise
            code = 128 + signal.SIGKILL
        finally:
            self._connection.close()
        return code

    def kill(self) -> None:
        """End it, and what it started in its process group."""
        self._is_killed = True
        self._connection.shut_down()


class Ending:
    """Becomes readable (select, poll) when a process has ended; already so where it had."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._connection.fileno()

    def close(self) -> None:
        """Stop waiting."""
        self._connection.close()


class AnchorClient:
    """All that an anchor can be asked. NotFound where no anchor listens at the socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, notes: Mapping[str, Any]) -> None:
        """Let the anchor remember, beside what it remembers already."""
        self._call("note", notes=dict(notes))

    def notes(self) -> dict[str, Any]:
        """What it remembers."""
        result: dict[str, Any] = self._call("notes")
        return result

    def ensure_netns(self, names: Sequence[str], labels: Mapping[str, str] | None = None) -> None:
        """Network namespaces of these names, at RUNDIR/private/netns/NAME, with `lo` up; new ones get the labels."""
        self._call("ensure-netns", names=list(names), labels=dict(labels or {}))

    def netns(self) -> dict[str, dict[str, str]]:
        """The network namespaces it keeps: name to labels."""
        result: dict[str, dict[str, str]] = self._call("netns")
        return result

    def delete_netns(self, names: Sequence[str]) -> None:
        """Let go of the namespaces of these names."""
        self._call("delete-netns", names=list(names))

    def run(self, plan: Mapping[str, Any]) -> Process:
        """Start a process (see anchor_child and anchor_processes for plans).

        AlreadyExists, and TestbedError with the reason where it could not be started.
        """
        return Process(**self._call("run", plan=dict(plan)))

    def list(self) -> tuple[list[Process], int]:
        """All processes that were run and not removed, and the generation at which that is so."""
        result = self._call("list")
        return [Process(**state) for state in result["processes"]], result["generation"]

    def signal(self, name: str, number: int) -> None:
        """Send a signal; nothing happens where the process has ended. NotFound."""
        self._call("signal", id=name, signal=number)

    def remove(self, name: str) -> None:
        """End it at once where it runs, and forget it; nothing happens where there is none."""
        self._call("remove", id=name)

    def wait(self, name: str, timeout_s: float) -> Process:
        """The process when it has ended. TimedOut, NotFound."""
        return Process(**self._call("wait", timeout_s, id=name))

    def ending(self, name: str) -> Ending:
        """The end of a process as something to poll beside other things."""
        connection = _Connection(self._path, ANSWER_WITHIN_S)
        connection.send({"op": "wait", "id": name})
        return Ending(connection)

    def watch(self, since: int, timeout_s: float) -> int:
        """The generation, once it is no longer `since`: some process started, ended or was removed. TimedOut."""
        result: int = self._call("watch", timeout_s, since=since)
        return result

    def execute(self, name: str, plan: Mapping[str, Any], stdio: tuple[int, int, int]) -> Execution:
        """Run a program in the namespaces of a process, with these descriptors. NotFound, TestbedError."""
        connection = _Connection(self._path, ANSWER_WITHIN_S)
        try:
            connection.send({"op": "exec", "id": name, "plan": dict(plan)}, stdio)
            connection.receive()
        except TestbedError:
            connection.close()
            raise
        connection.wait_forever()
        return Execution(connection)

    def _call(self, op: str, timeout_s: float = ANSWER_WITHIN_S, **fields: Any) -> Any:
        connection = _Connection(self._path, timeout_s)
        try:
            connection.send({"op": op, **fields})
            return connection.receive()
        finally:
            connection.close()


class _Connection:
    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._inbox = Inbox()
        self._messages: list[Message] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise NotFound(f"no anchor listens at {path}: {error.strerror}") from None

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        data = encode(message)
        sent = socket.send_fds(self._socket, [data], fds) if fds else 0
        self._socket.sendall(data[sent:])

    def receive(self) -> Any:
        while not self._messages:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                raise TimedOut(f"the anchor at {self._path} said nothing for {self._timeout_s:g} s") from None
            except ConnectionError:
                data = b""
            if not data:
                raise NotFound(f"the anchor at {self._path} has gone")
            self._messages += self._inbox.feed(data)
        return _result(self._messages.pop(0))

    def wait_forever(self) -> None:
        self._socket.settimeout(None)

    def fileno(self) -> int:
        return self._socket.fileno()

    def shut_down(self) -> None:
        with suppress(OSError):  # closed already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


def _result(message: Message) -> Any:
    if "error" not in message:
        return message["ok"]
    kind = getattr(testbed.errors, message["type"], TestbedError)
    raise kind(message["error"])
