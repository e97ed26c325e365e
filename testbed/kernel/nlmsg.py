"""The netlink wire format (RFC 3549 section 2): messages and attributes, to bytes and back. Pure.

Everything is a 16-byte header, a fixed part that depends on the message type, and attributes: length, type, value,
padded to four bytes, nested at will. Numbers are in the machine's byte order unless their name ends in `be16`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

NLM_F_REQUEST = 0x001
NLM_F_MULTI = 0x002
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
_NESTED = 0x8000


@dataclass(frozen=True)
class Message:
    """One netlink message: its type, flags, fixed part and attributes, the last two as bytes."""

    type: int
    flags: int = 0
    body: bytes = b""

    def encode(self, sequence: int, flags: int) -> bytes:
        """The bytes to send, with `flags` added to the message's own."""
        length = _HEADER.size + len(self.body)
        header = _HEADER.pack(length, self.type, self.flags | flags | NLM_F_REQUEST, sequence, 0)
        return header + self.body + b"\0" * (-length % 4)


@dataclass(frozen=True)
class Reply:
    """One message received."""

    type: int
    flags: int
    sequence: int
    body: bytes

    def attributes(self, skip: int) -> dict[int, bytes]:
        """The attributes behind a fixed part of `skip` bytes."""
        return parse_attributes(self.body, skip)


def decode(data: bytes) -> Iterator[Reply]:
    """The messages of one datagram, in order."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield Reply(kind, flags, sequence, data[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length % 4)


def nested(kind: int, attributes: Iterable[bytes]) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def u8(kind: int, value: int) -> bytes:
    """An 8-bit attribute."""
    return attribute(kind, struct.pack("=B", value))


def u16(kind: int, value: int) -> bytes:
    """A 16-bit attribute."""
    return attribute(kind, struct.pack("=H", value))


def be16(kind: int, value: int) -> bytes:
    """A 16-bit attribute in network order: a port."""
    return attribute(kind, struct.pack("!H", value))


def u32(kind: int, value: int) -> bytes:
    """A 32-bit attribute."""
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    """A zero-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def ipv4(kind: int, value: IPv4Address) -> bytes:
    """An IPv4 address."""
    return attribute(kind, value.packed)


def mac(kind: int, value: str) -> bytes:
    """An Ethernet address, from its colon form."""
    return attribute(kind, bytes.fromhex(value.replace(":", "")))


def parse_attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Attribute type to value; the flag bits of the type are dropped, and of equal types the last one stands."""
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def find_attribute(data: bytes, offset: int, wanted: int) -> bytes:
    """The first attribute of that type, empty where there is none: for one of many, read often."""
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if kind & _TYPE_MASK == wanted or length < _ATTRIBUTE.size:
            return data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return b""


def as_int(value: bytes) -> int:
    """A number in the machine's byte order, of whatever width."""
    return int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big")


def as_text(value: bytes) -> str:
    """A zero-terminated string."""
    return value.split(b"\0", 1)[0].decode()


def as_mac(value: bytes) -> str:
    """The colon form of an Ethernet address."""
    return value.hex(":")
