"""A client in a namespace, for the small HTTP servers of nodes."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any

from tests.kernel.lab import Lab


@dataclass(frozen=True)
class Heard:
    """An answer."""

    status: int
    text: str

    @property
    def document(self) -> Any:
        return json.loads(self.text)


async def asked(lab: Lab, place: str, host: str, port: int, target: str = "/") -> Heard:
    """What that place is told; OSError where nobody listens."""
    return await asyncio.to_thread(_ask, lab, place, host, port, target)


def _ask(lab: Lab, place: str, host: str, port: int, target: str) -> Heard:
    with lab.inside(place, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as sock:
        sock.settimeout(2.0)
        sock.connect((host, port))
        connection = http.client.HTTPConnection(host, port)
        connection.sock = sock
        connection.request("GET", target)
        with connection.getresponse() as response:
            return Heard(response.status, response.read().decode())
