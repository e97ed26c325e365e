"""One byte each way on an open connection, as fast as it goes: run inside two namespaces, standard library only.

`serve ADDRESS PORT CPU` answers until its input ends. `measure ADDRESS PORT CPU` reads a number of seconds per line,
and answers each with the median round trip in microseconds and the number of round trips.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import threading
import time


def serve(address: str, port: int) -> None:
    """Echo one byte at a time, for one client after the other."""
    listener = socket.create_server((address, port))
    print("ready", flush=True)  # noqa: T201
    threading.Thread(target=end_with_input, daemon=True).start()
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            receive, send = connection.recv, connection.send
            while received := receive(1):
                send(received)


def end_with_input() -> None:
    """Whoever started this has gone, or wants it to end."""
    sys.stdin.read()
    os._exit(0)


def measure(address: str, port: int) -> None:
    """A window for each line of input."""
    with socket.create_connection((address, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print("ready", flush=True)  # noqa: T201
        for line in sys.stdin:
            trips = window(connection, float(line))
            print(statistics.median(trips) / 1000, len(trips), flush=True)  # noqa: T201


def window(connection: socket.socket, seconds: float) -> list[int]:
    """Round trips in nanoseconds."""
    trips: list[int] = []
    receive, send, clock, add = connection.recv, connection.send, time.perf_counter_ns, trips.append
    end = clock() + round(seconds * 1e9)
    before = clock()
    while before < end:
        send(b"x")
        receive(1)
        now = clock()
        add(now - before)
        before = now
    return trips


if __name__ == "__main__":
    role, address, port, cpu = sys.argv[1:]
    os.sched_setaffinity(0, {int(cpu)})
    {"serve": serve, "measure": measure}[role](address, int(port))
