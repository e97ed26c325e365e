"""A client of the anchor, seen from the anchor."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable
from typing import Any

from testbed.agent.anchor_wire import Inbox, Message, encode
from testbed.errors import BadRequest, TestbedError


class Connection:
    """A client: its requests come in, answers go out, neither ever blocks the anchor."""

    def __init__(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        self._sock = sock
        self._selector = selector
        self._inbox = Inbox()
        self._out = bytearray()
        self._is_open = True
        self.fds: list[int] = []
        self.on_close: list[Callable[[], None]] = []

    def receive(self) -> list[Message]:
        """The requests that have come; none, and the connection closed, where the client has gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, 1 << 16, 4)
        except OSError:
            data, fds = b"", []
        self.fds += fds
        if data:
            try:
                return self._inbox.feed(data)
            except ValueError:  # no JSON: whatever it is, it is no client of ours
                pass
        self.close()
        return []

    def answer(self, result: Any) -> None:
        """Send a result, or the TestbedError that stands in its place."""
        if isinstance(result, TestbedError):
            self._out += encode({"error": str(result), "type": type(result).__name__})
        else:
            self._out += encode({"ok": result})
        self.flush()

    def flush(self) -> None:
        """Send what the client takes now, and the rest when it can take more."""
        if not self._is_open:
            return
        try:
            del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        self._selector.modify(self._sock, wanted, self._selector.get_key(self._sock).data)

    def take_fds(self, count: int) -> list[int]:
        """The descriptors that came with a request; they are the caller's now."""
        if len(self.fds) < count:
            raise BadRequest(f"{count} descriptors wanted, {len(self.fds)} came")
        taken, self.fds = self.fds[:count], self.fds[count:]
        return taken

    def close(self) -> None:
        """Forget the client."""
        if not self._is_open:
            return
        self._is_open = False
        self._selector.unregister(self._sock)
        self._sock.close()
        for fd in self.fds:
            os.close(fd)
        for call in self.on_close:
            call()
