"""How many durable writes does the API server take, and how soon does a watch tell of one?

`python -m tests.benchmarks.api_writes [--tls] [--seconds N]` starts a control plane of its own, with nothing to
control. The generator is an asyncio.Protocol on uvloop: it costs little, so that the server is what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar, cast

import orjson
import uvloop

from testbed.apiserver.serving import bound
from tests.benchmarks.figures import Measured, percentile
from tests.unit.apiserver.parts import ControlPlane, control_plane

CONNECTIONS = 8
SECONDS = 5.0
RATE = 200
SETTLE_S = 1.0
PAYLOAD = "x" * 1000
COLLECTION = "/api/v1/namespaces/default/configmaps"
WATCHED = re.compile(rb'"name":"late-(\d+)"')
P = TypeVar("P", bound=asyncio.Protocol)
TICKS = os.sysconf("SC_CLK_TCK")


class Connection(asyncio.Protocol):
    """One kept connection with one request under way at a time."""

    def __init__(self, answered: Callable[[Connection], None]) -> None:
        self._answered = answered
        self._received = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def send(self, request: bytes) -> None:
        """Send a request; `answered` is called when its response is complete."""
        assert self.transport is not None, "connected before"
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Collect one response."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        assert head.startswith(b"HTTP/1.1 201"), self._received.decode()
        self._received = b""
        self._answered(self)


class Writes:
    """Creates of 1 kB ConfigMaps, as fast as the server answers."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.count = 0
        self.is_over = False

    def next(self, connection: Connection) -> None:
        """Send the next one."""
        if not self.is_over:
            self.count += 1
            connection.send(request(self._token, f"load-{self.count}"))


class Late:
    """Creates at a steady rate, and when their events came."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.began: dict[int, float] = {}
        self.seen: dict[int, float] = {}
        self.idle: asyncio.Queue[Connection] = asyncio.Queue()

    def event(self, data: bytes) -> None:
        """A piece of the watch has come; a name that is split over two pieces is missed, and counted as such."""
        moment = time.perf_counter()
        for number in WATCHED.findall(data):
            self.seen.setdefault(int(number), moment)

    async def write(self, seconds: float) -> None:
        """Begin a write every 1/RATE s, on an idle connection."""
        start = time.perf_counter()
        for number in range(int(RATE * seconds)):
            await asyncio.sleep(start + number / RATE - time.perf_counter())
            self.began[number] = time.perf_counter()  # waiting for a connection counts
            (await self.idle.get()).send(request(self.token, f"late-{number}"))
        await asyncio.sleep(SETTLE_S)

    def delays_ms(self) -> list[float]:
        """Of every write whose event was seen."""
        return [(self.seen[number] - begin) * 1000 for number, begin in self.began.items() if number in self.seen]


class Watcher(asyncio.Protocol):
    """Hands on what a watch sends."""

    def __init__(self, event: Callable[[bytes], None], request: bytes) -> None:
        self._event = event
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the watch."""
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """Hand it on."""
        self._event(data)


def measured(*, tls: bool = False, seconds: float = SECONDS) -> Mapping[str, Measured]:
    """Figures `api-writes` (a second) and `write-to-event` (ms, 99th percentile)."""
    with (
        tempfile.TemporaryDirectory() as directory,
        closing(bound("127.0.0.1", 0)) as listener,
        control_plane(Path(directory), listener) as plane,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_measure(plane, listener if tls else None, seconds))


async def _measure(plane: ControlPlane, listener: socket.socket | None, seconds: float) -> Mapping[str, Measured]:
    return {
        "write-to-event": await _write_to_event(plane, listener, seconds),
        "api-writes": await _writes(plane, listener, seconds),
    }


async def _writes(plane: ControlPlane, listener: socket.socket | None, seconds: float) -> Measured:
    load = Writes(plane.token)
    connections = [await _connected(plane, listener, lambda: Connection(load.next)) for _ in range(CONNECTIONS)]
    before, start, own = _cpu_s(plane), time.perf_counter(), time.process_time()
    for connection in connections:
        load.next(connection)
    await asyncio.sleep(seconds)
    load.is_over = True
    elapsed, server, own = time.perf_counter() - start, _cpu_s(plane) - before, time.process_time() - own
    spent = f"CPU per write: server {server / load.count * 1e6:.0f} µs, generator {own / load.count * 1e6:.0f} µs"
    return Measured(load.count / elapsed, f"{load.count} creates over {CONNECTIONS} connections; {spent}")


async def _write_to_event(plane: ControlPlane, listener: socket.socket | None, seconds: float) -> Measured:
    late = Late(plane.token)
    await _connected(
        plane, listener, lambda: Watcher(late.event, request(plane.token, "", f"GET {COLLECTION}?watch=1"))
    )
    for _ in range(CONNECTIONS):
        late.idle.put_nowait(await _connected(plane, listener, lambda: Connection(late.idle.put_nowait)))
    await late.write(seconds)
    delays_ms = late.delays_ms()
    how = f"{len(delays_ms)} of {len(late.began)} events; median {statistics.median(delays_ms):.2f} ms, most "
    return Measured(percentile(delays_ms, 99), f"{how}{max(delays_ms):.2f} ms")


def request(token: str, name: str, line: str = f"POST {COLLECTION}") -> bytes:
    """The bytes of a request; with a name, one that creates a ConfigMap of 1 kB."""
    meta = {"name": name, "namespace": "default"}
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"fill": PAYLOAD}}
    body = orjson.dumps(obj) if name else b""
    head = f"{line} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _connected(plane: ControlPlane, listener: socket.socket | None, factory: Callable[[], P]) -> P:
    """A connection to the Unix socket, or with TLS to the listener."""
    loop = asyncio.get_running_loop()
    if listener is None:
        return (await loop.create_unix_connection(factory, str(plane.socket)))[1]
    tls = ssl.create_default_context(cafile=str(plane.path / "ca.crt"))
    host, port = listener.getsockname()
    return (await loop.create_connection(factory, host, port, ssl=tls))[1]


def _cpu_s(plane: ControlPlane) -> float:
    """User and system time of the server so far."""
    assert plane.process is not None, "started before"
    fields = Path(f"/proc/{plane.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def main(argv: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tls", action="store_true", help="over loopback TCP with TLS instead of the Unix socket")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each part")
    given = parser.parse_args(argv)
    for name, figure in measured(tls=given.tls, seconds=given.seconds).items():
        print(f"{name}: {figure.value:.2f} ({figure.how})", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
