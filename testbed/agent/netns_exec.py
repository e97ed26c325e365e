"""Programs run inside a container of the anchor: over pipes, or on a terminal."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
from collections.abc import Sequence
from io import FileIO, RawIOBase
from typing import Any

from testbed.agent.anchor_client import AnchorClient, Execution
from testbed.agent.sandbox import ExecSession
from testbed.errors import TestbedError


class PipeExec:
    """A program whose three streams are pipes. Its maker closes the streams."""

    def __init__(self, anchor: AnchorClient, container_id: str, argv: Sequence[str], *, stdin: bool) -> None:
        (out, theirs_out), (err, theirs_err) = os.pipe(), os.pipe()
        theirs_in, into = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), None)
        self.stdin: RawIOBase | None = None if into is None else FileIO(into, "w")
        self.stdout: RawIOBase = FileIO(out)
        self.stderr: RawIOBase | None = FileIO(err)
        plan = {"argv": list(argv)}
        self._execution = _execute(self, anchor, container_id, plan, (theirs_in, theirs_out, theirs_err))

    def resize(self, columns: int, rows: int) -> None:
        """Nothing: there is no terminal."""

    def wait(self) -> int:
        """The exit code, when it has ended."""
        return self._execution.wait()

    def kill(self) -> None:
        """End it."""
        self._execution.kill()


class TerminalExec:
    """A program on a pseudo-terminal of its own. Its maker closes the streams."""

    def __init__(self, anchor: AnchorClient, container_id: str, argv: Sequence[str], *, stdin: bool) -> None:
        ours, theirs = os.openpty()
        self.stdout: RawIOBase = _Terminal(ours)
        self.stderr: RawIOBase | None = None
        self.stdin: RawIOBase | None = FileIO(os.dup(ours), "w") if stdin else None
        plan = {"argv": list(argv), "terminal": True, "extra_env": {"TERM": "xterm"}}
        self._execution = _execute(self, anchor, container_id, plan, (theirs, os.dup(theirs), os.dup(theirs)))

    def resize(self, columns: int, rows: int) -> None:
        """The terminal's size; the program is told by SIGWINCH."""
        fcntl.ioctl(self.stdout.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self) -> int:
        """The exit code, when it has ended."""
        return self._execution.wait()

    def kill(self) -> None:
        """End it."""
        self._execution.kill()


class _Terminal(FileIO):
    """The end of a terminal's output is EIO, when the last program has closed it: an end like any other."""

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(size)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b""


def _execute(
    session: ExecSession, anchor: AnchorClient, container_id: str, plan: dict[str, Any], theirs: tuple[int, int, int]
) -> Execution:
    """Hand the program its ends; where it cannot be run, close ours too."""
    try:
        return anchor.execute(container_id, plan, theirs)
    except TestbedError:
        for stream in (session.stdin, session.stdout, session.stderr):
            if stream:
                stream.close()
        raise
    finally:
        for fd in theirs:
            os.close(fd)
