"""Readiness probes against real servers on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from testbed.agent.probes import Timing, http_probe, keep_asking, port_number, tcp_probe

HOST = "127.0.0.1"
QUICK = Timing(initial_delay_s=0, period_s=0.01, timeout_s=1, successes=1, failures=3)


class LoopbackSockets:
    """Sockets of this process' own namespace."""

    async def connect(self, address: str, port: int) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except OSError:
            sock.close()
            raise
        return sock


@asynccontextmanager
async def answering(line: bytes) -> AsyncIterator[int]:
    """A server that answers every request with that status line; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(line + b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def answers(*reasons: str) -> Callable[[], Awaitable[str]]:
    """A probe with these answers; the last one for ever."""
    left = list(reasons)

    async def ask() -> str:
        return left.pop(0) if len(left) > 1 else left[0]

    return ask


async def told(probe: Callable[[], Awaitable[str]], count: int, *, is_ready: bool = False) -> list[tuple[bool, str]]:
    """The first things that are told."""
    heard: list[tuple[bool, str]] = []
    enough = asyncio.Event()

    def tell(ready: bool, reason: str) -> None:
        heard.append((ready, reason))
        if len(heard) == count:
            enough.set()

    asking = asyncio.create_task(keep_asking(probe, QUICK, tell, is_ready=is_ready))
    await asyncio.wait_for(enough.wait(), 5)
    asking.cancel()
    return heard


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"HTTP/1.1 200 OK", ""), (b"HTTP/1.1 302 Found", ""),
        (b"HTTP/1.1 503 Busy", "HTTP probe failed with status code 503"),
    ],
)  # fmt: skip
async def test_http_succeeds_from_200_to_399(line: bytes, reason: str) -> None:
    async with answering(line) as port:
        assert await http_probe(LoopbackSockets(), HOST, port, {"path": "/healthz"})() == reason


async def test_tcp_succeeds_where_somebody_listens() -> None:
    async with answering(b"") as port:
        assert await tcp_probe(LoopbackSockets(), HOST, port)() == ""


async def test_readiness_comes_with_the_first_success() -> None:
    assert await told(answers("refused", "refused", ""), 1) == [(True, "")]


async def test_readiness_goes_after_three_failures_in_a_row() -> None:
    heard = await told(answers("", "no", "no", "", "no", "no", "no"), 2)
    assert heard[0] == (True, "")
    assert heard[-1][1] == "no"


async def test_a_container_that_was_ready_stays_so_until_it_fails() -> None:
    heard = await told(answers("", "no"), 3, is_ready=True)
    assert [ready for ready, _ in heard] == [True, True, False]


async def test_a_refused_connection_is_a_failure_with_its_reason() -> None:
    heard = await told(tcp_probe(LoopbackSockets(), HOST, unused_port()), 3, is_ready=True)
    assert "refused" in heard[-1][1]


@pytest.mark.parametrize(("given", "expected"), [(8080, 8080), ("http", 80), ("81", 81)])
def test_a_port_is_a_number_or_a_name_of_the_container(given: int | str, expected: int) -> None:
    assert port_number({"ports": [{"name": "http", "containerPort": 80}]}, given) == expected


def test_timing_has_kubernetes_defaults() -> None:
    expected: dict[str, Any] = {"initial_delay_s": 0, "period_s": 10, "timeout_s": 1, "successes": 1, "failures": 3}
    assert vars(Timing.of({})) == expected
