"""One kept-alive connection, and the inner loop that a generator's speed rests on.

A greenlet that waits on a gevent socket pays for a Waiter, a start and a stop of its watcher, each time. Here the
watcher stays started while the loop runs, and its callback is the greenlet's own `switch`: a request costs
two system calls, two switches, two readings of the clock and two comparisons of bytes.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gevent
from gevent import monkey
from gevent import socket as green_socket
from gevent.hub import get_hub

from testbed.loadgen.http import BadResponse, Framing, Head, end_of, framing, parse_head
from testbed.loadgen.recorder import Series

RECEIVE_BYTES = 1 << 16
_READABLE = 1  # libev's EV_READ

_KernelSocket: type[socket.socket] = monkey.get_original("socket", "socket")


class RequestFailed(OSError):
    """A request that was not answered well: no connection, no answer in time, a bad status."""


class Connection:
    """A TCP connection to one server, opened when first needed and again after the server closed it."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._address = (host, port)
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """Let go of the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def exchange(self, request: bytes) -> tuple[Head, bytes, int]:
        """Send `request` and return the head, the whole response and the time it took in ns. RequestFailed."""
        with self._failing_in_words():
            return self._exchange(request)

    def repeat(self, request: bytes, series: Series, seconds: float) -> None:
        """Send `request` again and again for `seconds`, one at a time, each recorded in `series`. RequestFailed.

        `request` must fit the socket's empty send buffer: one call of send(2) takes it whole.
        """
        until_ns = time.perf_counter_ns() + int(seconds * 1e9)
        with self._failing_in_words():
            while time.perf_counter_ns() < until_ns:
                head, response, elapsed_ns = self._exchange(request)
                _record(head, elapsed_ns, series)
                expected = framing(head, response)
                if expected and (odd := self._repeat_like(expected, request, series, until_ns)):
                    _record(*self._finish(request, *odd), series)

    def _repeat_like(
        self, expected: Framing, request: bytes, series: Series, until_ns: int
    ) -> tuple[bytes, int] | None:
        """The inner loop. Ends with the time, or with what came that was not as expected and when it was asked for."""
        assert self._socket is not None, "a response with a framing leaves its connection open"
        send, receive, counts = self._socket.send, self._socket.recv, series.counts
        fits, now = expected.fits, time.perf_counter_ns
        with self._readable(self._socket) as wait:
            sent = now()
            while sent < until_ns:
                try:
                    send(request)
                    wait()
                    data = receive(RECEIVE_BYTES)
                except ConnectionError:
                    return b"", sent
                elapsed_ns = now() - sent
                if not fits(data):
                    return data, sent
                try:
                    counts[elapsed_ns // 1000] += 1
                except IndexError:
                    series.record_slow(elapsed_ns // 1000)
                sent = now()
        return None

    def _finish(self, request: bytes, data: bytes, sent: int) -> tuple[Head, int]:
        """Bring a response to its end that came in pieces, has changed, or did not come because the server closed."""
        assert self._socket is not None, "it was read from"
        if data:
            with self._readable(self._socket) as wait:
                head, _ = self._read(self._socket, wait, data)
        else:
            self.close()
            head, _ = self._answer(request)
        elapsed_ns = time.perf_counter_ns() - sent
        if head.closes:
            self.close()
        return head, elapsed_ns

    def _exchange(self, request: bytes) -> tuple[Head, bytes, int]:
        was_open = self._socket is not None
        sent = time.perf_counter_ns()
        try:
            head, response = self._answer(request)
        except ConnectionError:
            if not was_open:
                raise
            # A server may close an idle connection at any moment; RFC 9112, 9.3.1 lets the client try once more.
            self.close()
            head, response = self._answer(request)
        elapsed_ns = time.perf_counter_ns() - sent
        if head.closes:
            self.close()
        return head, response, elapsed_ns

    def _answer(self, request: bytes) -> tuple[Head, bytes]:
        if self._socket is None:
            self._socket = self._open()
        with self._readable(self._socket) as wait:
            self._send(self._socket, request)
            return self._read(self._socket, wait, b"")

    def _open(self) -> socket.socket:
        green = green_socket.create_connection(self._address, timeout=self._timeout_s)
        kernel_socket = _KernelSocket(fileno=green.detach())
        kernel_socket.setblocking(False)
        kernel_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return kernel_socket

    @staticmethod
    def _send(to: socket.socket, request: bytes) -> None:
        sent = 0
        while sent < len(request):
            try:
                sent += to.send(request[sent:])
            except BlockingIOError:
                gevent.socket.wait_write(to.fileno())

    @staticmethod
    def _read(source: socket.socket, wait: Callable[[], object], data: bytes) -> tuple[Head, bytes]:
        while True:
            head = parse_head(data)
            if head and (end := end_of(head, data)):
                return head, data[:end]
            wait()
            more = source.recv(RECEIVE_BYTES)
            if not more:
                if head and head.closes and head.length is None and not head.chunked:
                    return head, data
                raise ConnectionResetError("the server closed the connection within a response")
            data += more

    @contextmanager
    def _readable(self, source: socket.socket) -> Iterator[Callable[[], object]]:
        """A function that returns when `source` has something to read; only to be called by this greenlet."""
        hub = get_hub()
        watcher = hub.loop.io(source.fileno(), _READABLE)
        watcher.start(gevent.getcurrent().switch)
        try:
            yield hub.switch
        finally:
            watcher.stop()
            watcher.close()

    @contextmanager
    def _failing_in_words(self) -> Iterator[None]:
        host, port = self._address
        try:
            with gevent.Timeout(self._timeout_s):
                yield
        except gevent.Timeout:
            self.close()
            raise RequestFailed(f"{host}:{port} did not answer within {self._timeout_s:g} s") from None
        except BadResponse as error:
            self.close()
            raise RequestFailed(str(error)) from error
        except RequestFailed:
            raise
        except OSError as error:
            self.close()
            raise RequestFailed(f"{host}:{port}: {error.strerror or error}") from error


def _record(head: Head, elapsed_ns: int, series: Series) -> None:
    if head.status >= 400:
        raise RequestFailed(f"the server answered with status {head.status}")
    series.record(elapsed_ns)
