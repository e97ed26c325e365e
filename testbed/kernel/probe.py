"""Full-size packets that must not be fragmented: what a path really carries.

ICMP echo with IP_PMTUDISC_PROBE (ip(7)): the kernel sets don't-fragment and believes no earlier answer about the path's
MTU, so a packet arrives whole or not at all. Raw sockets: root of a namespace may open them, also in a user namespace.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Collection
from ipaddress import IPv4Address
from pathlib import Path

from testbed.errors import KernelError
from testbed.kernel import netns as namespaces

_IP_HEADER, _ICMP_HEADER = 20, 8
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3
_SOL_RAW, _ICMP_FILTER = 255, 1
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_ECHO = struct.Struct("!BBHHH")
_RESEND_S = 0.02


def echo(
    netns: Path | None, source: IPv4Address, targets: Collection[IPv4Address], size: int, *, timeout_s: float
) -> dict[IPv4Address, str]:
    """Send each target IP packets of exactly `size` bytes; those that sent none back, with the reason.

    A lost packet is sent again every 0.02 s until `timeout_s`. Blocks that long at the most. Raises KernelError where
    the source is not an address of this node, or raw sockets are not permitted (CAP_NET_RAW).
    """
    try:
        sock = _open() if netns is None else namespaces.inside(netns, _open)
        with sock:
            sock.bind((str(source), 0))
            return _echo(sock, targets, _request(size), time.monotonic() + timeout_s)
    except OSError as error:
        raise KernelError(f"echo from {source}: {error.strerror or error}", error.errno or 0) from None


def _open() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
    everything_else = ~(1 << _ECHO_REPLY) & 0xFFFFFFFF
    sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", everything_else))
    return sock


def _request(size: int) -> bytes:
    """An echo request of zeros, so that its checksum is that of the header."""
    identifier = int.from_bytes(os.urandom(2), "big")
    total = (_ECHO_REQUEST << 8) + identifier
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return _ECHO.pack(_ECHO_REQUEST, 0, checksum, identifier, 0) + bytes(size - _IP_HEADER - _ICMP_HEADER)


def _echo(
    sock: socket.socket, targets: Collection[IPv4Address], request: bytes, deadline: float
) -> dict[IPv4Address, str]:
    missing = dict.fromkeys(targets, "no answer")
    while missing and time.monotonic() < deadline:
        for target in missing:
            try:
                sock.sendto(request, (str(target), 0))
            except OSError as error:
                missing[target] = error.strerror or str(error)
        _receive(sock, missing, request, min(deadline, time.monotonic() + _RESEND_S))
    return missing


def _receive(sock: socket.socket, missing: dict[IPv4Address, str], request: bytes, until: float) -> None:
    """Strike out those that answer with the very packet they were sent."""
    while missing and (left_s := until - time.monotonic()) > 0:
        sock.settimeout(left_s)
        try:
            packet = sock.recv(len(request) + 60)
        except TimeoutError:
            return
        answer = packet[(packet[0] & 0x0F) * 4 :]
        if len(answer) == len(request) and answer[4:8] == request[4:8]:
            missing.pop(IPv4Address(packet[12:16]), None)
