"""What a pod is asked to do on its network. Sent to `python3 -` on standard input: standard library only.

Every question is answered by a document with an `outcome` in the words of agnhost's `connect` (OK, TIMEOUT, REFUSED,
OTHER). Byte strings travel as Latin-1.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3  # linux/in.h
ICMP_ECHO, ICMP_ECHO_REPLY = 8, 0
IPV4_HEADER = 20
SIOCGIFMTU = 0x8921


def http(host: str, port: int, path: str = "/", *, timeout_s: float = 2.0) -> Answer:
    """GET over a new connection: status, body (its first 2 kB), and the client's own address."""
    with socket.create_connection((host, port), timeout_s) as connection:
        source = connection.getsockname()[0]
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    return {
        "status": int(head.split()[1]),
        "body": body[:2048].decode("latin-1"),
        "source": source,
    }


def post(host: str, port: int, size: int, *, timeout_s: float = 10.0) -> Answer:
    """POST `size` bytes to /echo, which sends them back; `intact` tells whether they are the same."""
    sent = pattern(size)
    with socket.create_connection((host, port), timeout_s) as connection:
        connection.sendall(f"POST /echo HTTP/1.0\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n".encode() + sent)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    body = received.partition(b"\r\n\r\n")[2]
    return {"size": len(body), "intact": body == sent}


def udp(host: str, port: int, message: str, *, filler: int = 0, timeout_s: float = 2.0) -> Answer:
    """Send `message` and `filler` bytes more as one datagram, wait for one reply; is the filler in it as it was?"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(timeout_s)
        sender.connect((host, port))
        try:
            sender.send(message.encode("latin-1") + pattern(filler))
        except PermissionError:  # how the kernel tells a local sender that its packet was rejected on the output hook
            raise ConnectionRefusedError from None
        reply = sender.recv(65536)
        return {
            "body": reply[:2048].decode("latin-1"),
            "size": len(reply),
            "intact": reply.endswith(pattern(filler)),
            "source": sender.getsockname()[0],
        }


def pattern(size: int) -> bytes:
    """That many bytes in which a lost, doubled or moved part shows."""
    return b"".join(struct.pack("!I", number) for number in range(size // 4 + 1))[:size]


def mtu(device: str) -> Answer:
    """The MTU of a device."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = fcntl.ioctl(any_socket, SIOCGIFMTU, struct.pack("16si12x", device.encode(), 0))
    return {"mtu": struct.unpack_from("16si", request)[1]}


def tcp(host: str, port: int, *, timeout_s: float = 2.0) -> Answer:
    """Open a connection and close it."""
    socket.create_connection((host, port), timeout_s).close()
    return {}


def tls(host: str, port: int, *, timeout_s: float = 2.0) -> Answer:
    """A TLS handshake; whose certificate it is, is not asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, port), timeout_s) as connection, context.wrap_socket(connection) as secured:
        return {"version": secured.version()}


def ping(host: str, size: int, *, timeout_s: float = 1.0) -> Answer:
    """`ping -M do`: one echo request in an IP packet of `size` bytes that nobody may fragment. Needs NET_RAW."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        raw.connect((host, 0))
        number = time.monotonic_ns() & 0xFFFF
        raw.send(echo_request(number, size - IPV4_HEADER - 8))
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            raw.settimeout(left)
            packet = raw.recv(65536)
            kind, _, _, identifier = struct.unpack_from("!BBHH", packet, (packet[0] & 15) * 4)
            if (kind, identifier) == (ICMP_ECHO_REPLY, number):
                return {"size": len(packet)}
    raise TimeoutError


def echo_request(identifier: int, payload: int) -> bytes:
    """An ICMP echo request (RFC 792) with that many bytes of payload."""
    body = struct.pack("!HH", identifier, 1) + b"x" * payload
    return struct.pack("!BBH", ICMP_ECHO, 0, checksum(struct.pack("!BBH", ICMP_ECHO, 0, 0) + body)) + body


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


QUESTIONS: dict[str, Callable[..., Answer]] = {
    "http": http,
    "post": post,
    "udp": udp,
    "tcp": tcp,
    "tls": tls,
    "ping": ping,
    "mtu": mtu,
}


def ask(question: str, **details: Any) -> Answer:
    """One question, answered: an error is an outcome too."""
    began = time.monotonic()
    try:
        answer = {"outcome": "OK", **QUESTIONS[question](**details)}
    except TimeoutError:
        answer = {"outcome": "TIMEOUT"}
    except ConnectionRefusedError:
        answer = {"outcome": "REFUSED"}
    except (OSError, ValueError, IndexError) as error:
        answer = {"outcome": "OTHER", "error": f"{type(error).__name__}: {error}"}
    return {**answer, "seconds": time.monotonic() - began}
