"""What a node's namespace counts: devices with their MTU, offloads and packets, and tracked connections."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from pathlib import Path
from typing import Any

_SIOCETHTOOL = 0x8946
_SIOCGIFMTU = 0x8921
_OFFLOADS = {"tx-checksum": 0x16, "scatter-gather": 0x18, "tso": 0x1E, "gso": 0x23, "gro": 0x2B}
"""ETHTOOL_GTXCSUM, GSG, GTSO, GGSO, GGRO: the commands that read one flag (linux/ethtool.h)."""
_COUNTERS = {"rx_bytes": 0, "rx_packets": 1, "rx_dropped": 3, "tx_bytes": 8, "tx_packets": 9, "tx_dropped": 11}
"""Columns of /proc/net/dev."""


def counters() -> dict[str, Any]:
    """Every device of this namespace, and the size of its connection table (0 where nothing is tracked)."""
    return {"devices": devices(Path("/proc/net/dev").read_text()), "conntrack": conntrack_count()}


def devices(table: str) -> dict[str, dict[str, int | list[str]]]:
    """Name → counters, MTU and offloads that are on; `table` is the text of /proc/net/dev."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for line in table.splitlines()[2:]:
            name, _, columns = line.partition(":")
            name, numbers = name.strip(), columns.split()
            counted: dict[str, int | list[str]] = {what: int(numbers[at]) for what, at in _COUNTERS.items()}
            found[name] = counted | {"mtu": mtu(any_socket, name), "offloads": offloads(any_socket, name)}
    return found


def mtu(any_socket: socket.socket, device: str) -> int:
    """SIOCGIFMTU; 0 where the device is gone."""
    try:
        answer = fcntl.ioctl(any_socket, _SIOCGIFMTU, struct.pack("16si12x", device.encode(), 0))
    except OSError:
        return 0
    return int(struct.unpack("16si12x", answer)[1])


def offloads(any_socket: socket.socket, device: str) -> list[str]:
    """Which of the segmentation and checksum offloads are on; a device that knows none has none."""
    return [name for name, command in _OFFLOADS.items() if _flag(any_socket, device, command)]


def conntrack_count() -> int:
    """Tracked connections of this namespace."""
    try:
        return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
    except OSError:
        return 0


def _flag(any_socket: socket.socket, device: str, command: int) -> bool:
    value = array.array("I", [command, 0])
    address, _ = value.buffer_info()
    try:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("16sP", device.encode(), address))
    except OSError:
        return False
    return bool(value[1])
