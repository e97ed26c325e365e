"""Reading a log file while a program still writes to it: woken by inotify(7), never by a clock."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
from io import RawIOBase
from pathlib import Path
from typing import Any, Protocol

from testbed.errors import KernelError

IN_MODIFY = 0x2


class Ending(Protocol):
    """Something that becomes readable when the writer has ended."""

    def fileno(self) -> int:
        """The descriptor to poll."""
        ...

    def close(self) -> None:
        """Not needed any more."""
        ...


def tail_offset(path: Path, lines: int) -> int:
    """Where the last `lines` lines of the file begin."""
    if not path.stat().st_size:
        return 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = len(data) - data[-1:].count(b"\n")
        if not lines:
            return len(data)
        for _ in range(lines):
            position = data.rfind(b"\n", 0, position)
            if position < 0:
                return 0
        return position + 1


class FollowedLog(RawIOBase):
    """A file whose end is where its writer ended. `close` from another thread ends a read that blocks."""

    def __init__(self, path: Path, offset: int, ending: Ending) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(self._fd, offset, os.SEEK_SET)
        self._changes = _inotify(path)
        self._ending = ending
        self._is_over = False
        self._woken, self._waker = os.pipe()
        self._poll = select.poll()
        for fd in (self._changes, self._woken, ending.fileno()):
            self._poll.register(fd, select.POLLIN)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What the file has beyond what was read; blocks until there is more or the writer has ended."""
        while not (count := os.readv(self._fd, [buffer])) and not self._is_over:
            ready = {fd for fd, _ in self._poll.poll()}
            if self._changes in ready:
                os.read(self._changes, 4096)
            self._is_over = self._ending.fileno() in ready or self._woken in ready
        return count

    def close(self) -> None:
        """End a read that blocks; the descriptors go with the object, as that read may still hold them."""
        if not self.closed:
            os.close(self._waker)
            super().close()

    def __del__(self) -> None:
        self.close()
        for fd in (self._fd, self._changes, self._woken):
            os.close(fd)
        self._ending.close()


def _inotify(path: Path) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0 or libc.inotify_add_watch(fd, str(path).encode(), IN_MODIFY) < 0:
        number = ctypes.get_errno()
        raise KernelError(f"watch {path}: {os.strerror(number)}", number)
    return fd
