"""Count the packets that cross a device, by flow: an AF_PACKET socket (packet(7)), which sees both directions."""

from __future__ import annotations

import dataclasses
import select
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

from testbed.errors import MachineLacks
from testbed.loadgen.probe.frames import Flow, flow

_ALL_PROTOCOLS = 0x0003  # ETH_P_ALL
_HEADERS = 160
"""Bytes read of each frame: both stacks of headers."""
_BUFFER_BYTES = 8 << 20


class Capture:
    """An open capture on one device."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._flows: Counter[Flow | None] = Counter()
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        except PermissionError:
            raise MachineLacks("a capture needs the capability NET_RAW") from None
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        try:
            self._socket.bind((device, 0))
        except OSError as error:
            self._socket.close()
            raise MachineLacks(f"no capture on device {device}: {error.strerror}") from None
        self._socket.setblocking(False)

    def run(self, seconds: float, until: int | None = None) -> bool:
        """Count for `seconds`, or until the file descriptor `until` has something to read: whether that was it."""
        deadline = time.monotonic() + seconds
        watched = [self._socket.fileno(), *([] if until is None else [until])]
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select(watched, [], [], left)
            if self._socket.fileno() in ready:
                self._drain()
            if until in ready:
                self._drain()
                return True
        self._drain()
        return False

    def result(self) -> dict[str, Any]:
        """What was counted; closes the capture."""
        dropped = int.from_bytes(self._socket.getsockopt(263, 6, 8)[4:8], "little")  # SOL_PACKET, PACKET_STATISTICS
        self._socket.close()
        flows = [dataclasses.asdict(seen) | {"frames": n} for seen, n in self._flows.most_common() if seen]
        return {"device": self._device, "flows": flows, "other": self._flows[None], "dropped": dropped}

    def _drain(self) -> None:
        while True:
            try:
                frame = self._socket.recv(_HEADERS)
            except BlockingIOError:
                return
            self._flows[flow(frame)] += 1


def default_device(table: str | None = None) -> str:
    """The device of the default route; `table` is the text of /proc/net/route. MachineLacks where there is none."""
    text = Path("/proc/net/route").read_text() if table is None else table
    for line in text.splitlines()[1:]:
        device, target, *_, mask = line.split()[:8]
        if target == mask == "00000000":
            return device
    raise MachineLacks("this node has no default route, so no device that leads to other nodes")
