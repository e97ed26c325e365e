"""One long TCP connection that nobody may break, run in pods as `python3 -u -c`: standard library only.

`serve PORT` echoes lines. `talk HOST PORT` sends a numbered line every 10 ms over a single connection and prints, five
times a second, how many came back and the longest it had to wait in milliseconds; it ends with `BROKEN …`.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time

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
    connection = socket.create_connection((host, port), SILENCE_S)
    number, longest_s, told = 0, 0.0, time.monotonic()
    while True:
        line = f"{number}\n".encode()
        sent = time.monotonic()
        connection.sendall(line)
        answer = connection.recv(4096)
        if answer != line:
            sys.exit(f"BROKEN after {number} lines: received {answer!r}")
        number, longest_s = number + 1, max(longest_s, time.monotonic() - sent)
        if sent - told > 0.2:
            print(number, round(longest_s * 1000), flush=True)  # noqa: T201
            told, longest_s = sent, 0.0
        time.sleep(0.01)


def end(*_: object) -> None:
    """A PID 1 has to handle SIGTERM to be ended by it."""
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        try:
            talk(sys.argv[2], int(sys.argv[3]))
        except OSError as error:
            sys.exit(f"BROKEN: {type(error).__name__}: {error}")
