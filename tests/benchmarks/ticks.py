"""A packet every millisecond, each a connection of its own: run inside two namespaces, standard library only.

`receive ADDRESS PORT` answers each line of input with what has come since the line before: the longest time, in
milliseconds, from the moment a packet was due to leave until it was here, and the number of packets. `send ADDRESS
PORT` sends until its input ends. Both run before every ordinary process where they may: what remains is the kernel's
doing.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
from contextlib import suppress

INTERVAL_NS = 1_000_000
_STAMP = struct.Struct("=Q")


def receive(address: str, port: int) -> None:
    """Count until the input ends."""
    delays: list[int] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, port))
        threading.Thread(target=_collect, args=(sock, delays), daemon=True).start()
        print("ready", flush=True)  # noqa: T201
        for _ in sys.stdin:
            found = delays[:]
            del delays[: len(found)]
            print(max(found, default=0) / 1e6, len(found), flush=True)  # noqa: T201
    os._exit(0)


def send(address: str, port: int) -> None:
    """A packet at each full millisecond; late ones are sent at once, with the time at which they were due."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    print("ready", flush=True)  # noqa: T201
    due = time.monotonic_ns()
    while True:
        due += INTERVAL_NS
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(_STAMP.pack(due), (address, port))


def _collect(sock: socket.socket, delays: list[int]) -> None:
    while True:
        stamp = sock.recv(64)
        delays.append(time.monotonic_ns() - _STAMP.unpack(stamp)[0])


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    role, address, port = sys.argv[1:]
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    {"receive": receive, "send": send}[role](address, int(port))
