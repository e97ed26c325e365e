"""Messages between the anchor and its clients: four bytes of length, a JSON document, sometimes file descriptors.

A request is `{"op": NAME, …}`, its answer `{"ok": RESULT}` or `{"error": SENTENCE, "errno": N}`. Descriptors travel
beside the first byte of the request that they belong to (SCM_RIGHTS, unix(7)).
"""

from __future__ import annotations

import json
import struct
from typing import Any

Message = dict[str, Any]

_LENGTH = struct.Struct("!I")


def encode(message: Message) -> bytes:
    """The message as it travels."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


class Inbox:
    """Bytes in, whole messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now; the rest waits for more bytes. ValueError for what is no message."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            message = json.loads(self._buffer[_LENGTH.size : end])
            if not isinstance(message, dict):
                raise ValueError(f"a message is an object, not {message!r}")  # noqa: TRY004 - the peer's mistake
            messages.append(message)
            del self._buffer[:end]
        return messages
