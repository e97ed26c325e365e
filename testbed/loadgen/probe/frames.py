"""Ethernet frames to flows: IPv4 as it is, and IPv4 inside VXLAN (RFC 7348). Pure.

Ethernet 14 | IPv4 20+ | UDP 8, port 8472 | VXLAN 8 | Ethernet 14 | IPv4 20+ | TCP or UDP …
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from testbed.api.wellknown import VXLAN_PORT

_ETHERNET = 14
_IPV4 = b"\x08\x00"
_TCP, _UDP = 6, 17
_NAMES = {1: "icmp", _TCP: "tcp", _UDP: "udp"}


@dataclass(frozen=True)
class Flow:
    """One direction of a conversation, as its packets look on a device."""

    source: str
    target: str
    protocol: str
    """`tcp`, `udp`, `icmp`, or the protocol's number."""
    source_port: int = 0
    target_port: int = 0
    vni: int | None = None
    """The VXLAN network whose tunnel carried it; None for a packet that was not in a tunnel."""
    outer_source: str = ""
    outer_target: str = ""


def flow(frame: bytes, vxlan_port: int = VXLAN_PORT) -> Flow | None:
    """The flow that a frame belongs to: the inner one of a tunnel. None for what is not IPv4."""
    outer = _ip_flow(frame, _ETHERNET) if frame[12:14] == _IPV4 else None
    if outer is None or outer.protocol != "udp" or outer.target_port != vxlan_port:
        return outer
    header = _ETHERNET + _header_length(frame, _ETHERNET) + 8
    inner_frame = frame[header + 8 :]
    inner = _ip_flow(inner_frame, _ETHERNET) if inner_frame[12:14] == _IPV4 else None
    if inner is None:
        return outer
    vni = int.from_bytes(frame[header + 4 : header + 7], "big")
    ports = (inner.source_port, inner.target_port)
    return Flow(inner.source, inner.target, inner.protocol, *ports, vni, outer.source, outer.target)


def _ip_flow(frame: bytes, start: int) -> Flow | None:
    if len(frame) < start + 20 or frame[start] >> 4 != 4:
        return None
    protocol = frame[start + 9]
    source, target = (str(IPv4Address(frame[start + at : start + at + 4])) for at in (12, 16))
    payload = start + _header_length(frame, start)
    fragment_offset = struct.unpack_from("!H", frame, start + 6)[0] & 0x1FFF
    ports: tuple[int, int] = (0, 0)
    if protocol in (_TCP, _UDP) and not fragment_offset and len(frame) >= payload + 4:
        ports = struct.unpack_from("!HH", frame, payload)
    return Flow(source, target, _NAMES.get(protocol, str(protocol)), *ports)


def _header_length(frame: bytes, start: int) -> int:
    return (frame[start] & 0x0F) * 4
