"""As much of HTTP/1.1 (RFC 9112) as a generator needs: build a request, and tell where a response ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_BODILESS = {204, 304}


class BadResponse(ValueError):
    """What the server sent is no HTTP/1.1 response."""


@dataclass(frozen=True)
class Head:
    """The part of a response that says how long the rest is."""

    status: int
    size: int
    """Bytes up to and including the empty line."""
    length: int | None
    """Of the body; None for a chunked one and for one that ends with the connection."""
    chunked: bool
    closes: bool
    """The server will close the connection after this response."""


@dataclass(frozen=True)
class Framing:
    """How one complete response was framed, so that the next like it is recognised by two comparisons."""

    size: int
    status_line: bytes
    start: int
    """Where the Content-Length line begins."""
    length_line: bytes

    def fits(self, data: bytes) -> bool:
        """Whether `data` is one complete response with the same status, Content-Length and size."""
        return (
            len(data) == self.size
            and data.startswith(self.status_line)
            and data.startswith(self.length_line, self.start)
        )


def request(method: str, path: str, host: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """The bytes of one request on a connection that stays open."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def parse_head(data: bytes) -> Head | None:
    """The head of a response; None where it is not complete yet. BadResponse where it is none."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    status_line, *lines = data[:end].split(b"\r\n")
    if not status_line.startswith(b"HTTP/1.") or not status_line[9:12].isdigit():
        raise BadResponse(f"the server answered {status_line[:60]!r}, which is no HTTP status line")
    fields = {name.lower(): value.strip().lower() for name, _, value in (line.partition(b":") for line in lines)}
    status = int(status_line[9:12])
    length = fields.get(b"content-length")
    return Head(
        status=status,
        size=end + 4,
        length=0 if status in _BODILESS else int(length) if length is not None else None,
        chunked=b"chunked" in fields.get(b"transfer-encoding", b""),
        closes=b"close" in fields.get(b"connection", b"") or status_line.startswith(b"HTTP/1.0"),
    )


def end_of(head: Head, data: bytes) -> int | None:
    """The size of the whole response; None while more must come, or where the connection's end is its end."""
    if head.chunked:
        return _end_of_chunks(data, head.size)
    if head.length is None or len(data) < head.size + head.length:
        return None
    return head.size + head.length


def framing(head: Head, data: bytes) -> Framing | None:
    """What to expect of the next response like this complete one; None where only parsing can tell."""
    start = data.lower().find(b"\r\ncontent-length:", 0, head.size)
    if start < 0 or head.chunked or head.closes or head.length is None or head.status >= 400:
        return None
    length_line = data[start : data.find(b"\r\n", start + 2) + 2]
    return Framing(head.size + head.length, data[:12], start, length_line)


def _end_of_chunks(data: bytes, position: int) -> int | None:
    while (line_end := data.find(b"\r\n", position)) >= 0:
        size = int(data[position:line_end].split(b";")[0], 16)
        if size == 0:
            end = data.find(b"\r\n", line_end + 2)
            return end + 2 if end == line_end + 2 else _end_of_trailers(data, line_end)
        position = line_end + 2 + size + 2
    return None


def _end_of_trailers(data: bytes, position: int) -> int | None:
    end = data.find(b"\r\n\r\n", position)
    return end + 4 if end >= 0 else None
