"""A container's output as a stream of bytes."""

from __future__ import annotations

from io import RawIOBase
from typing import Any

from docker.types import CancellableStream


class DockerLog(RawIOBase):
    """Both streams in order. `close` from another thread ends a read that blocks."""

    def __init__(self, chunks: CancellableStream[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next piece, as the engine hands it over; nothing at the end."""
        while not self._rest:
            piece = next(self._chunks, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Cut the engine's stream."""
        if not self.closed:
            super().close()
            self._chunks.close()
