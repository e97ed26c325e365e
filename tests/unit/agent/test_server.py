"""The agent's door: logs, exec, and who may ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from testbed.agent.fake import FakeSandboxes
from testbed.agent.sandbox import ContainerSpec, ContainerState
from testbed.agent.server import AgentServer, Request
from testbed.api.objects import Key
from testbed.errors import BadRequest, NotFound

TOKEN = "secret"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def sandboxes() -> FakeSandboxes:
    """One container that has printed three lines, and answers exec with its own arguments and exit code 3."""

    def execute(_container: str, argv: Sequence[str]) -> tuple[int, bytes]:
        return (3 if argv[0] == "fail" else 0), " ".join(argv).encode()

    made = FakeSandboxes(execute=execute)
    started = made.start(ContainerSpec("uid", "main", "testbed/web", Path("/n"), "", "", "web", 0))
    made.logs[started.id] = b"one\ntwo\nthree\n"
    return made


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    """The address of a server of one pod, default/web."""
    runtime = sandboxes()

    def find(which: Key, container: str, *, previous: bool = False) -> ContainerState:
        if (which, container, previous) != (Key("default", "web"), "main", False):
            raise NotFound(f"container {container!r} of pod {which} has not been started")
        return runtime.containers()[0]

    server = await asyncio.start_server(AgentServer(find, runtime, TOKEN).serve_client, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


async def get(address: str, target: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Status and body."""
    reader, writer = await asyncio.open_connection(*address.split(":"))
    lines = [
        f"GET {target} HTTP/1.1",
        *(f"{name}: {value}" for name, value in (BEARER if headers is None else headers).items()),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    if b"chunked" in head:
        chunks = body.split(b"\r\n")
        body = b"".join(chunks[1::2])
    return int(head.split()[1]), body


async def test_a_log_is_sent_whole_or_from_near_its_end() -> None:
    async with served() as address:
        assert await get(address, "/containerLogs/default/web/main") == (200, b"one\ntwo\nthree\n")
        assert await get(address, "/containerLogs/default/web/main?tailLines=1") == (200, b"three\n")


@pytest.mark.parametrize(
    ("target", "headers", "code"),
    [
        ("/containerLogs/default/web/main", {}, 401),
        ("/containerLogs/default/web/main", {"Authorization": "Bearer wrong"}, 401),
        ("/containerLogs/default/none/main", None, 404),
        ("/containerLogs/default/web", None, 404),
        ("/pods", None, 404),
        ("/containerLogs/default/web/main?tailLines=x", None, 400),
        ("/exec/default/web/main", None, 400),
    ],
)
async def test_what_cannot_be_answered_is_refused_with_a_status(
    target: str, headers: dict[str, str] | None, code: int
) -> None:
    async with served() as address:
        status, body = await get(address, target, headers)
    assert (status, json.loads(body)["code"]) == (code, code)


async def test_exec_sends_output_and_then_how_the_program_ended() -> None:
    async with served() as address:
        messages = await exec_messages(address, "command=echo&command=a%20b&stdout=1&stderr=1")
    assert messages[:-1] == [b"\x01echo a b"]
    assert json.loads(messages[-1][1:])["status"] == "Success"


async def test_exec_tells_an_exit_code() -> None:
    async with served() as address:
        *_, last = await exec_messages(address, "command=fail&stdout=1")
    status = json.loads(last[1:])
    assert (last[:1], status["reason"]) == (b"\x03", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def exec_messages(address: str, query: str) -> list[bytes]:
    uri = f"ws://{address}/exec/default/web/main?{query}"
    protocols = [Subprotocol("v5.channel.k8s.io")]
    async with connect(uri, subprotocols=protocols, additional_headers=BEARER, compression=None, proxy=None) as socket:
        return [message async for message in socket if isinstance(message, bytes)]


def test_a_request_is_taken_apart() -> None:
    request = Request.parse(b"GET /exec/ns/p%2Fq/c?command=a&command=b&stdin=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert request.path == ("exec", "ns", "p/q", "c")
    assert request.query["command"] == ["a", "b"]
    assert request.flag("stdin")
    assert not request.flag("tty")


def test_what_is_no_http_is_refused() -> None:
    with pytest.raises(BadRequest, match="not an HTTP request"):
        Request.parse(b"hello\r\n\r\n")
