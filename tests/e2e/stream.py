"""Load that tells at once when it is disturbed, run in pods as `python3 -u -c`: standard library only.

`serve PORT` echoes lines. `talk HOST PORT` sends a numbered line every 10 ms over a single connection; `knock HOST
PORT` opens a new connection for each. Both print, five times a second, how many lines came back and the longest they
had to wait in milliseconds, and end with `BROKEN …` at the first that does not.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

SILENCE_S = 10.0
"""Longer than any restart of a part, shorter than the tests' own limits."""


def serve(port: int) -> None:
    """Echo, one thread per connection, until SIGTERM."""
    listener = socket.create_server(("", port))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


def echo(connection: socket.socket) -> None:
    """Send everything back."""
    with connection:
        while received := connection.recv(4096):
            connection.sendall(received)


def talk(host: str, port: int) -> None:
    """Keep one connection busy."""
    with socket.create_connection((host, port), SILENCE_S) as connection:
        repeat(lambda line: exchange(connection, line))


def knock(host: str, port: int) -> None:
    """A new connection each time."""

    def once(line: bytes) -> bytes:
        with socket.create_connection((host, port), SILENCE_S) as connection:
            return exchange(connection, line)

    repeat(once)


def exchange(connection: socket.socket, line: bytes) -> bytes:
    """What the server sends back."""
    connection.sendall(line)
    return connection.recv(4096)


def repeat(send: Callable[[bytes], bytes]) -> None:
    """Send numbered lines for ever and tell how it goes."""
    number, longest_s, told = 0, 0.0, time.monotonic()
    while True:
        line = f"{number}\n".encode()
        began = time.monotonic()
        if (answer := send(line)) != line:
            sys.exit(f"BROKEN after {number} lines: received {answer!r}")
        number, longest_s = number + 1, max(longest_s, time.monotonic() - began)
        if began - told > 0.2:
            print(number, round(longest_s * 1000), flush=True)  # noqa: T201
            told, longest_s = began, 0.0
        time.sleep(0.01)


def end(*_: object) -> None:
    """A PID 1 has to handle SIGTERM to be ended by it."""
    sys.exit(0)


ROLES: dict[str, Callable[..., None]] = {"serve": serve, "talk": talk, "knock": knock}

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    role, *where, port = sys.argv[1:]
    try:
        ROLES[role](*where, int(port))
    except OSError as error:
        sys.exit(f"BROKEN: {type(error).__name__}: {error}")
