"""Programs run inside a container of the anchor: over pipes, or on a terminal."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
from collections.abc import Sequence
from io import FileIO, RawIOBase

from testbed.agent.anchor_client import AnchorClient


class PipeExec:
    """A program whose three streams are pipes."""

    def __init__(self, anchor: AnchorClient, container_id: str, argv: Sequence[str], *, stdin: bool) -> None:
        ours_in, theirs_in = _input() if stdin else (None, os.open(os.devnull, os.O_RDONLY))
        (out, theirs_out), (err, theirs_err) = os.pipe(), os.pipe()
        self.stdin: RawIOBase | None = ours_in
        self.stdout: RawIOBase = FileIO(out)
        self.stderr: RawIOBase | None = FileIO(err)
        theirs = (theirs_in, theirs_out, theirs_err)
        try:
            self._execution = anchor.execute(container_id, {"argv": list(argv)}, theirs)
        finally:
            for fd in theirs:
                os.close(fd)

    def resize(self, columns: int, rows: int) -> None:
        """Nothing: there is no terminal."""

    def wait(self) -> int:
        """The exit code, when it has ended."""
        return self._execution.wait()

    def kill(self) -> None:
        """End it."""
        self._execution.kill()


class TerminalExec:
    """A program on a pseudo-terminal of its own."""

    def __init__(self, anchor: AnchorClient, container_id: str, argv: Sequence[str], *, stdin: bool) -> None:
        ours, theirs = os.openpty()
        self.stdout: RawIOBase = _Terminal(ours)
        self.stderr: RawIOBase | None = None
        self.stdin: RawIOBase | None = FileIO(os.dup(ours), "w") if stdin else None
        try:
            plan = {"argv": list(argv), "terminal": True, "extra_env": {"TERM": "xterm"}}
            self._execution = anchor.execute(container_id, plan, (theirs, theirs, theirs))
        finally:
            os.close(theirs)

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


def _input() -> tuple[RawIOBase, int]:
    theirs, ours = os.pipe()
    return FileIO(ours, "w"), theirs
