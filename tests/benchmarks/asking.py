"""Which address has a name now? Run in a pod by exec: a question to the DNS every 2 ms, a line whenever it changes."""

from __future__ import annotations

import socket
import struct
import time

EVERY_S = 0.002


def watch(server: str, name: str) -> None:
    """Print the monotonic time and the address, at first and at each change; a dash where there is none."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    question = struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)
    last = ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(1.0)
        asking.connect((server, 53))
        while True:
            address = ask(asking, question)
            if address != last:
                print(time.monotonic(), address, flush=True)  # noqa: T201
                last = address
            time.sleep(EVERY_S)


def ask(asking: socket.socket, question: bytes) -> str:
    """The last address of the answer, which for one record is the end of the message."""
    try:
        asking.send(question)
        answer = asking.recv(4096)
    except OSError as error:
        return type(error).__name__
    return socket.inet_ntoa(answer[-4:]) if struct.unpack_from("!H", answer, 6)[0] else "-"
