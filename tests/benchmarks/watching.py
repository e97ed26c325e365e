"""How long after a write begins has a watcher seen it? Raw connections, so that the client costs next to nothing."""

from __future__ import annotations

import asyncio
import re
import ssl
import statistics
import time
from urllib.parse import urlsplit

import orjson

from testbed.runtime.protocol import Endpoint
from testbed.waiting import wait_until_async
from tests.benchmarks.figures import Measured, percentile

RATE = 200
SECONDS = 10
CONNECTIONS = 8
COLLECTION = "/api/v1/namespaces/default/configmaps"
NUMBER = re.compile(rb'"name":\s*"watched-(\d+)"')
SETTLE_S = 5.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def write_to_event(endpoint: Endpoint) -> Measured:
    """Creates of 1 kB ConfigMaps, 200 each second by the clock, over 8 kept TLS connections; p99 in milliseconds."""
    began: dict[int, float] = {}
    seen: dict[int, float] = {}
    watch = await _connect(endpoint)
    watch[1].write(_request(endpoint, "GET", f"{COLLECTION}?watch=1&resourceVersion=0"))
    watcher = asyncio.create_task(_see(watch[0], seen))
    writers: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        writers.put_nowait(await _connect(endpoint))
    try:
        async with asyncio.TaskGroup() as writes:
            start = time.monotonic()
            for number in range(RATE * SECONDS):
                await asyncio.sleep(max(0.0, start + number / RATE - time.monotonic()))
                writes.create_task(_write(endpoint, writers, number, began))

        async def all_seen() -> bool:
            return len(seen) == len(began)

        await wait_until_async(all_seen, SETTLE_S, "the last of the events")
    finally:
        watcher.cancel()
        for _, writer in [watch, *(writers.get_nowait() for _ in range(writers.qsize()))]:
            writer.close()
    delays_ms = [(seen[number] - moment) * 1000 for number, moment in began.items()]
    how = f"{len(delays_ms)} writes at {RATE} a second; median {statistics.median(delays_ms):.2f} ms, most "
    return Measured(percentile(delays_ms, 99), how + f"{max(delays_ms):.2f} ms")


async def _connect(endpoint: Endpoint) -> Connection:
    url = urlsplit(endpoint.url)
    tls = ssl.create_default_context(cadata=endpoint.ca.decode())
    return await asyncio.open_connection(url.hostname, url.port, ssl=tls)


def _request(endpoint: Endpoint, method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {endpoint.token}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def _write(endpoint: Endpoint, writers: asyncio.Queue[Connection], number: int, began: dict[int, float]) -> None:
    meta = {"name": f"watched-{number}", "namespace": "default"}
    body = orjson.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"fill": "x" * 1000}})
    began[number] = time.monotonic()
    reader, writer = connection = await writers.get()
    writer.write(_request(endpoint, "POST", COLLECTION, body))
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 201 " in head.partition(b"\r\n")[0], head.decode()
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    assert length, head.decode()
    await reader.readexactly(int(length[1]))
    writers.put_nowait(connection)


async def _see(reader: asyncio.StreamReader, seen: dict[int, float]) -> None:
    """Note when each ConfigMap is first told of. A name is never split over two reads: lines are read whole."""
    while line := await reader.readline():
        if found := NUMBER.search(line):
            seen.setdefault(int(found[1]), time.monotonic())
