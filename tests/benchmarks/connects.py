"""How long does a connection take to be made? Run inside a pod, standard library only.

`latency HOST PORT HOST PORT COUNT CPU` prints the median and the 99th percentile of each of two addresses, in
microseconds, measured in turns. `follow HOST PORT` prints the monotonic time and the answer whenever another server
answers, or none does, until its input ends. `answer ADDRESS PORT NAME` is such a server.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import sys
import threading
import time

FOLLOW_S = 0.0003
TIMEOUT_S = 0.001
"""Twenty times what a connection takes: what is dropped is soon tried again."""


def latency(first: tuple[str, int], second: tuple[str, int], count: int) -> None:
    """So many connections to each."""
    times: tuple[list[int], list[int]] = ([], [])
    for _ in range(count):
        for address, found in zip((first, second), times, strict=True):
            found.append(connect_ns(address))
    for found in times:
        ordered = sorted(found)
        print(statistics.median(ordered) / 1000, ordered[len(ordered) * 99 // 100] / 1000, flush=True)  # noqa: T201


def connect_ns(address: tuple[str, int]) -> int:
    """From SYN to established; it is closed by a reset, so that no port waits for its time to pass."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        began = time.perf_counter_ns()
        sock.connect(address)
        return time.perf_counter_ns() - began


def follow(host: str, port: int) -> None:
    """Who answers, as it changes."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    last = None
    while True:
        said = _asked(host, port)
        if said != last:
            print(time.monotonic(), said or "-", flush=True)  # noqa: T201
            last = said
        time.sleep(FOLLOW_S)


def answer(address: str, port: int, name: str) -> None:
    """Tell everyone one's name."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    with socket.create_server((address, port), backlog=1024) as listener:
        print("ready", flush=True)  # noqa: T201
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(name.encode())
                except OSError:  # reset by one that only measures
                    continue


def _asked(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), TIMEOUT_S) as connection:
            return connection.recv(100).decode()
    except OSError:
        return ""


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    match sys.argv[1:]:
        case ["latency", host, port, other, other_port, count, cpu]:
            os.sched_setaffinity(0, {int(cpu)})
            latency((host, int(port)), (other, int(other_port)), int(count))
        case ["follow", host, port]:
            follow(host, int(port))
        case ["answer", address, port, name]:
            answer(address, int(port), name)
