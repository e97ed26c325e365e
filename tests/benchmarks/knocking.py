"""Who answers now? Run in a pod by exec: a new connection every 2 ms, a line whenever another server answers."""

from __future__ import annotations

import socket
import time

EVERY_S = 0.002


def knock(host: str, port: int) -> None:
    """Print the monotonic time and the name of the server, at first and at each change. Errors are answers too."""
    last = ""
    while True:
        name = answer(host, port)
        if name != last:
            print(time.monotonic(), name, flush=True)  # noqa: T201
            last = name
        time.sleep(EVERY_S)


def answer(host: str, port: int) -> str:
    """The name of the pod behind a netexec, over a connection of its own."""
    try:
        with socket.create_connection((host, port), 1.0) as connection:
            connection.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: connection.recv(4096), b"")).rpartition(b"\r\n\r\n")[2].decode()
    except OSError as error:
        return type(error).__name__
