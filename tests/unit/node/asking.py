"""A client for the small HTTP servers of node daemons: everything that comes, taken apart."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """An answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def document(self) -> Any:
        return json.loads(self.text)


async def ask(port: int, target: str, *, method: str = "GET", host: str = "127.0.0.1") -> Reply:
    """One request, and all that is said until the server closes."""
    return await say(port, f"{method} {target} HTTP/1.1\r\nHost: here\r\n\r\n".encode(), host=host)


async def say(port: int, data: bytes, *, host: str = "127.0.0.1") -> Reply:
    """The same with a request of one's own."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(data)
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Reply(int(first.split(" ")[1]), headers, body)
