"""What a pod is asked to do on its network. Sent to `python3 -` on standard input: standard library only.

Every question is answered by a document with an `outcome` in the words of agnhost's `connect` (OK, TIMEOUT, REFUSED,
DNS, OTHER). Byte strings travel as Latin-1.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3  # linux/in.h
ICMP_ECHO, ICMP_ECHO_REPLY = 8, 0
IPV4_HEADER = 20
SIOCGIFMTU = 0x8921


def http(host: str, port: int, path: str = "/", *, timeout_s: float = 2.0) -> Answer:
    """GET over a new connection: status, body (its first 64 kB), and the client's own address."""
    with socket.create_connection((host, port), timeout_s) as connection:
        source = connection.getsockname()[0]
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    return {
        "status": int(head.split()[1]),
        "body": body[:65536].decode("latin-1"),
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


def udp(host: str, port: int, message: str, *, filler: int = 0, source_port: int = 0, timeout_s: float = 2.0) -> Answer:
    """Send `message` and `filler` bytes more as one datagram, wait for one reply; is the filler in it as it was?

    With a `source_port`, all such questions are one flow to connection tracking.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("", source_port))
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


def survey(
    host: str, port: int, protocol: str = "TCP", *, times: int = 60, every_s: float = 0.0, timeout_s: float = 1.0
) -> Answer:
    """Ask that many times who answers, over a new connection each; how often each name did.

    The first that is not answered ends it, and its outcome is that of the whole.
    """
    names: dict[str, int] = {}
    for _ in range(times):
        if protocol == "UDP":
            name = udp(host, port, "hostname", timeout_s=timeout_s)["body"]
        else:
            name = http(host, port, "/hostname", timeout_s=timeout_s)["body"]
        names[name] = names.get(name, 0) + 1
        time.sleep(every_s)
    return {"names": names}


def send_until_answered(host: str, port: int, message: str, source_port: int, *, timeout_s: float) -> Answer:
    """One datagram every 20 ms from the same port, whatever comes back, until there is an answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("", source_port))
        sender.settimeout(0.02)
        deadline = time.monotonic() + timeout_s
        print("sending", flush=True)  # noqa: T201
        while time.monotonic() < deadline:
            try:
                sender.sendto(message.encode(), (host, port))
                return {"body": sender.recv(65536).decode("latin-1")}
            except TimeoutError:
                continue
            except OSError:  # refused by an ICMP error that came for an earlier one
                time.sleep(0.02)
    raise TimeoutError


def converse(host: str, port: int, seconds: float, *, timeout_s: float = 2.0) -> Answer:
    """Ask over one and the same connection, every 50 ms for so long, who answers: names and how often."""
    names: dict[str, int] = {}
    with socket.create_connection((host, port), timeout_s) as connection, connection.makefile("rb") as stream:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            connection.sendall(f"GET /hostname HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = b"".join(iter(stream.readline, b"\r\n"))
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            name = stream.read(length).decode("latin-1")
            if not names:
                print(name, flush=True)  # noqa: T201
            names[name] = names.get(name, 0) + 1
            time.sleep(0.05)
    return {"names": names}


def knock(hosts: list[str], port: int, *, timeout_s: float) -> Answer:
    """For each address in turn, when on the monotonic clock the first connection to it succeeded.

    The clock is the machine's: it may be compared with one read in another namespace.
    """
    moments = []
    deadline = time.monotonic() + timeout_s
    print("knocking", flush=True)  # noqa: T201
    for host in hosts:
        while not _opens(host, port):
            if time.monotonic() > deadline:
                raise TimeoutError
        moments.append(time.monotonic())
    return {"moments": moments}


def _opens(host: str, port: int) -> bool:
    """Whether a connection is accepted within 10 ms; there are no more than 200 tries a second."""
    began = time.monotonic()
    try:
        socket.create_connection((host, port), 0.01).close()
    except OSError:
        time.sleep(max(0.0, 0.005 - (time.monotonic() - began)))
        return False
    return True


def twins(host: str, port: int, *, pairs: int, timeout_s: float = 1.0) -> Answer:
    """Two datagrams at the same moment from one new socket, as a resolver asks for A and AAAA; how many get lost."""
    lost = 0
    start = threading.Barrier(2)
    sender: socket.socket

    def second() -> None:
        for _ in range(pairs):
            start.wait()
            sender.send(b"echo 2")
            start.wait()

    helper = threading.Thread(target=second, daemon=True)
    helper.start()
    for _ in range(pairs):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(timeout_s)
            sender.connect((host, port))
            start.wait()
            sender.send(b"echo 1")
            start.wait()
            lost += 2 - _received(sender, 2)
    helper.join()
    return {"sent": 2 * pairs, "lost": lost}


def _received(receiver: socket.socket, wanted: int) -> int:
    """How many of the datagrams that are waited for come."""
    for number in range(wanted):
        try:
            receiver.recv(65536)
        except TimeoutError:
            return number
    return wanted


def resolve(host: str) -> Answer:
    """The IPv4 addresses of a name, by the pod's own resolver."""
    return {"addresses": sorted({found[4][0] for found in socket.getaddrinfo(host, None, socket.AF_INET)})}


def wait(seconds: float) -> Answer:
    """Do nothing for so long, between two questions."""
    time.sleep(seconds)
    return {}


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


def banner(host: str, port: int, *, timeout_s: float = 3.0) -> Answer:
    """All that the server says of itself, until it closes."""
    with socket.create_connection((host, port), timeout_s) as connection:
        return {"body": b"".join(iter(lambda: connection.recv(65536), b"")).decode("latin-1")}


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
    "survey": survey,
    "send_until_answered": send_until_answered,
    "converse": converse,
    "knock": knock,
    "twins": twins,
    "resolve": resolve,
    "wait": wait,
    "tcp": tcp,
    "banner": banner,
    "tls": tls,
    "ping": ping,
    "mtu": mtu,
}


def ask(question: str, **details: Any) -> Answer:
    """One question, answered: an error is an outcome too."""
    began = time.monotonic()
    try:
        answer = {"outcome": "OK", **QUESTIONS[question](**details)}
    except socket.gaierror as error:
        answer = {"outcome": "DNS", "error": str(error)}
    except TimeoutError:
        answer = {"outcome": "TIMEOUT"}
    except ConnectionRefusedError:
        answer = {"outcome": "REFUSED"}
    except (OSError, ValueError, IndexError) as error:
        answer = {"outcome": "OTHER", "error": f"{type(error).__name__}: {error}"}
    return {**answer, "seconds": time.monotonic() - began}
