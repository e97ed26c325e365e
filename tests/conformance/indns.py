"""What a pod is asked about names: DNS messages of its own making, standard library only. Sent to `python3 -`.

Written from RFC 1035 (messages), 2782 (SRV), 3596 (AAAA) and 6891 (EDNS), and used to judge the product's DNS, so it
shares nothing with it.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "TXT": 16, "AAAA": 28, "SRV": 33, "OPT": 41}
CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}
AUTHORITATIVE, TRUNCATED, RECURSION_DESIRED = 0x0400, 0x0200, 0x0100


def domain() -> str:
    """The cluster's domain, as the search list tells it."""
    words = Path("/etc/resolv.conf").read_text().split()
    return next(word.removeprefix("svc.") for word in words if word.startswith("svc."))


def query(name: str, kind: str = "A", *, tcp: bool = False, payload: int = 0, timeout_s: float = 2.0) -> Answer:
    """Ask the pod's first nameserver one question; with a `payload` in EDNS, for answers of that many bytes."""
    identifier = time.monotonic_ns() & 0xFFFF
    head = struct.pack("!HHHHHH", identifier, RECURSION_DESIRED, 1, 0, 0, 1 if payload else 0)
    option = struct.pack("!BHHIH", 0, TYPES["OPT"], payload, 0, 0) if payload else b""
    message = head + encoded(name) + struct.pack("!HH", TYPES[kind], 1) + option
    answer = _over_tcp(message, timeout_s) if tcp else _over_udp(message, timeout_s)
    return parsed(answer)


def until(name: str, kind: str, wanted: list[str], *, code: str = "NOERROR", timeout_s: float = 10.0) -> Answer:
    """Ask again and again until the answer has just this data and this code; the last answer, whatever it was."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = query(name, kind)
        if (answer["code"], answer["data"]) == (code, sorted(wanted)) or time.monotonic() > deadline:
            return answer
        time.sleep(0.02)


def looked_up(*names: str) -> list[list[str] | str]:
    """The addresses of each name by the pod's own resolver, or what it says instead."""
    return [_looked_up(name) for name in names]


def own_names() -> Answer:
    """`hostname`, and `hostname -f`."""
    short = os.uname().nodename
    found = socket.getaddrinfo(short, None, socket.AF_INET, socket.SOCK_DGRAM, 0, socket.AI_CANONNAME)
    return {"short": short, "full": found[0][3]}


def file(path: str) -> list[str]:
    """The lines of a file that say something."""
    return [line for line in Path(path).read_text().splitlines() if line and not line.startswith("#")]


def encoded(name: str) -> bytes:
    """A name in wire format."""
    labels = (label.encode() for label in name.rstrip(".").split("."))
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def parsed(message: bytes) -> Answer:
    """Code, flags, the question's name, the answer section's data, and how long the message was."""
    _, flags, questions, answers, _, _ = struct.unpack_from("!HHHHHH", message)
    name, at = _name(message, 12)
    at += 4 * questions
    records = []
    for _ in range(answers):
        owner, at = _name(message, at)
        kind, _, ttl, length = struct.unpack_from("!HHIH", message, at)
        records.append({"owner": owner, "ttl": ttl, "data": _data(message, kind, at + 10, length)})
        at += 10 + length
    return {
        "code": CODES.get(flags & 15, str(flags & 15)),
        "authoritative": bool(flags & AUTHORITATIVE),
        "truncated": bool(flags & TRUNCATED),
        "question": name,
        "data": sorted(record["data"] for record in records),
        "records": records,
        "size": len(message),
    }


def _looked_up(name: str) -> list[str] | str:
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None, socket.AF_INET)})
    except socket.gaierror as error:
        return str(error)


def _server() -> str:
    words = Path("/etc/resolv.conf").read_text().split()
    return words[words.index("nameserver") + 1]


def _over_udp(message: bytes, timeout_s: float) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(timeout_s)
        asking.connect((_server(), 53))
        asking.send(message)
        return asking.recv(65536)


def _over_tcp(message: bytes, timeout_s: float) -> bytes:
    with socket.create_connection((_server(), 53), timeout_s) as asking, asking.makefile("rb") as answer:
        asking.sendall(struct.pack("!H", len(message)) + message)
        return answer.read(struct.unpack("!H", answer.read(2))[0])


def _name(message: bytes, at: int) -> tuple[str, int]:
    """A name, perhaps compressed, and where it ends."""
    labels: list[str] = []
    while length := message[at]:
        if length >= 0xC0:
            rest, _ = _name(message, struct.unpack_from("!H", message, at)[0] & 0x3FFF)
            return ".".join([*labels, rest]), at + 2
        labels.append(message[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join([*labels, ""]), at + 1


def _data(message: bytes, kind: int, at: int, length: int) -> str:
    if kind in (TYPES["A"], TYPES["AAAA"]):
        return socket.inet_ntop(socket.AF_INET if length == 4 else socket.AF_INET6, message[at : at + length])
    if kind in (TYPES["CNAME"], TYPES["PTR"], TYPES["NS"]):
        return _name(message, at)[0]
    if kind == TYPES["SRV"]:
        return f"{struct.unpack_from('!H', message, at + 4)[0]} {_name(message, at + 6)[0]}"
    if kind == TYPES["TXT"]:
        return message[at + 1 : at + 1 + message[at]].decode()
    return message[at : at + length].hex()
