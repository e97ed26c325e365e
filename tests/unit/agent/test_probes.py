"""Probes and hooks against real servers on loopback, and what their answers come to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from testbed.agent.actions import (
    NodeSockets,
    Sockets,
    act,
    failing_action,
    http_action,
    port_number,
    sleep_action,
    tcp_action,
)
from testbed.agent.health import Probing
from testbed.agent.podrun import Ground
from testbed.agent.probes import Timing, keep_asking
from testbed.agent.sandbox import ContainerState
from tests.unit.agent.specs import cluster, node

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


async def told(
    probe: Callable[[], Awaitable[str]], count: int, *, held: bool | None = False, timing: Timing = QUICK
) -> list[tuple[bool | None, str]]:
    """The first things that are told."""
    heard: list[tuple[bool | None, str]] = []
    enough = asyncio.Event()

    def tell(held: bool | None, reason: str) -> None:
        heard.append((held, reason))
        if len(heard) == count:
            enough.set()

    asking = asyncio.create_task(keep_asking(probe, timing, tell, held=held))
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
        assert await http_action(LoopbackSockets(), HOST, port, {"path": "/healthz"})() == reason


async def test_tcp_succeeds_where_somebody_listens() -> None:
    async with answering(b"") as port:
        assert await tcp_action(LoopbackSockets(), HOST, port)() == ""


async def test_wellness_comes_with_the_first_success_and_earlier_failures_are_not_told() -> None:
    slow = Timing(initial_delay_s=0, period_s=1000, timeout_s=1, successes=1, failures=3)
    assert await told(answers("refused", "refused", ""), 1, timing=slow) == [(True, "")]


async def test_wellness_goes_after_three_failures_in_a_row() -> None:
    heard = await told(answers("", "no", "no", "", "no", "no", "no"), 6)
    assert heard == [(True, ""), *[(True, "no")] * 4, (False, "no")]


async def test_a_container_that_was_well_stays_so_until_it_fails() -> None:
    heard = await told(answers("", "no"), 3, held=True)
    assert [held for held, _ in heard] == [True, True, False]


async def test_a_container_that_never_starts_is_given_up_after_all_of_its_failures() -> None:
    heard = await told(answers("no"), 3, held=None)
    assert [held for held, _ in heard] == [None, None, False]


async def test_as_many_successes_as_asked_for_make_well() -> None:
    twice = Timing(initial_delay_s=0, period_s=0.01, timeout_s=1, successes=2, failures=1)
    assert await told(answers("", "no", "", ""), 2, timing=twice) == [(False, "no"), (True, "")]


async def test_a_refused_connection_is_a_failure_with_its_reason() -> None:
    heard = await told(tcp_action(LoopbackSockets(), HOST, unused_port()), 3, held=True)
    assert "refused" in heard[-1][1]


async def test_what_takes_too_long_has_failed() -> None:
    assert await act(sleep_action(60), 0.01) == "no answer within 0.01 s"
    assert await act(sleep_action(0), 1) == ""


async def test_what_cannot_be_tried_says_why() -> None:
    assert await act(failing_action("no such port"), 1) == "no such port"


@pytest.mark.parametrize(("given", "expected"), [(8080, 8080), ("http", 80), ("81", 81)])
def test_a_port_is_a_number_or_a_name_of_the_container(given: int | str, expected: int) -> None:
    assert port_number({"ports": [{"name": "http", "containerPort": 80}]}, given) == expected


def test_a_port_that_the_container_does_not_name_is_an_error() -> None:
    with pytest.raises(LookupError, match="no port named http"):
        port_number({"name": "main"}, "http")


async def test_a_probe_goes_on_through_the_new_sockets_of_its_node(tmp_path: Path) -> None:
    former = NodeSockets(tmp_path)
    former.close()
    ways: list[Sockets] = [LoopbackSockets(), former]
    probing = Probing(lambda _: ways[-1], _no_program, lambda _, __: None)
    state = ContainerState("c", "p", "main", "image", 0, True, 1, "2026-01-01T00:00:00Z")
    ground = Ground(cluster(), node("a", 1), IPv4Address(HOST))
    async with answering(b"HTTP/1.1 200 OK") as port:
        action = probing.action({"tcpSocket": {"port": port}}, {"name": "main"}, state, ground)
        ways.pop()
        assert await act(action, 1) == ""


async def test_a_namespace_that_is_gone_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    sockets = NodeSockets(tmp_path / "gone")
    assert await act(tcp_action(sockets, HOST, 1), 1) == "the node's network namespace is gone"
    sockets.close()


async def _no_program(_: str, __: Sequence[str]) -> int:
    return 0


def test_timing_has_kubernetes_defaults() -> None:
    expected: dict[str, Any] = {"initial_delay_s": 0, "period_s": 10, "timeout_s": 1, "successes": 1, "failures": 3}
    assert vars(Timing.of({})) == expected
