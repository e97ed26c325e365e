"""Exec over a real WebSocket on a Unix socket; the server is a few lines that speak the protocol's other side."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, unix_serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from testbed.client.http import HttpClient
from testbed.client.streams import Channel
from testbed.errors import NotFound, ServiceUnavailable

Behaviour = Callable[[ServerConnection], Awaitable[None]]
SUCCESS = b"\x03" + json.dumps({"status": "Success"}).encode()


def ended_with(code: int) -> bytes:
    causes = [{"reason": "ExitCode", "message": str(code)}]
    status = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
    return b"\x03" + json.dumps(status).encode()


@asynccontextmanager
async def serving(behaviour: Behaviour, tmp_path: Path) -> AsyncIterator[HttpClient]:
    socket = tmp_path / "api.sock"
    async with (
        unix_serve(behaviour, str(socket), subprotocols=[Subprotocol("v5.channel.k8s.io")]),
        HttpClient("https://cluster", "secret", socket=socket) as client,
    ):
        yield client


async def words(*said: bytes) -> AsyncIterator[bytes]:
    for word in said:
        yield word


async def test_what_a_program_writes_and_its_exit_code_come_back(tmp_path: Path) -> None:
    async def program(connection: ServerConnection) -> None:
        for message in (b"\x01", b"\x01out", b"\x02err", b"\x01more", ended_with(3)):
            await connection.send(message)

    async with serving(program, tmp_path) as client, client.exec("default", "web", ["false"]) as stream:
        output = await stream.output()
    assert (output.exit_code, output.stdout, output.stderr) == (3, b"outmore", b"err")


async def test_an_input_that_fails_is_told_and_ends_the_program(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def program(connection: ServerConnection) -> None:
        await connection.wait_closed()
        ended.set()

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise OSError("the disk is gone")

    async with serving(program, tmp_path) as client:
        with pytest.raises(OSError, match="the disk is gone"):
            async with client.exec("default", "web", ["cat"], stdin=broken()):
                await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            await ended.wait()


async def test_the_request_names_pod_command_and_token(tmp_path: Path) -> None:
    seen: list[Request] = []

    async def program(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append(connection.request)
        await connection.send(SUCCESS)

    async with (
        serving(program, tmp_path) as client,
        client.exec("default", "web", ["echo", "a b"], container="main") as stream,
    ):
        assert (await stream.output()).exit_code == 0
    assert seen[0].path == (
        "/api/v1/namespaces/default/pods/web/exec?command=echo&command=a+b&stdout=1&container=main&stderr=1"
    )
    assert seen[0].headers["Authorization"] == "Bearer secret"


async def test_standard_input_arrives_in_order_and_ends(tmp_path: Path) -> None:
    async def cat(connection: ServerConnection) -> None:
        async for message in connection:
            assert isinstance(message, bytes)
            if message == bytes([Channel.CLOSE, Channel.STDIN]):
                await connection.send(SUCCESS)
            else:
                await connection.send(bytes([Channel.STDOUT]) + message[1:])

    large = bytes(range(256)) * 1024
    async with (
        serving(cat, tmp_path) as client,
        client.exec("default", "web", ["cat"], stdin=words(b"first ", large)) as stream,
    ):
        assert (await stream.output()).stdout == b"first " + large


async def test_a_program_that_ends_before_its_input_is_no_error(tmp_path: Path) -> None:
    async def head(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(SUCCESS)

    async with (
        serving(head, tmp_path) as client,
        client.exec("default", "web", ["head"], stdin=words(*[b"x" * 65536] * 50)) as stream,
    ):
        assert (await stream.output()).exit_code == 0


async def test_a_terminal_is_resized(tmp_path: Path) -> None:
    async def program(connection: ServerConnection) -> None:
        message = await connection.recv()
        assert isinstance(message, bytes)
        await connection.send(b"\x01" + message[:1] + message[1:])
        await connection.send(SUCCESS)

    async with serving(program, tmp_path) as client, client.exec("default", "web", ["sh"], tty=True) as stream:
        await stream.resize(80, 24)
        assert (await stream.output()).stdout == b'\x04{"Width": 80, "Height": 24}'


async def test_a_refusal_is_the_api_error_it_carries(tmp_path: Path) -> None:
    def refuse(connection: ServerConnection, _request: Request) -> Response:
        status = {"kind": "Status", "code": 404, "reason": "NotFound", "message": 'pods "web" not found'}
        return connection.respond(HTTPStatus.NOT_FOUND, json.dumps(status))

    async def never(_: ServerConnection) -> None: ...

    async with (
        unix_serve(never, str(tmp_path / "api.sock"), process_request=refuse),
        HttpClient("https://cluster", "secret", socket=tmp_path / "api.sock") as client,
    ):
        with pytest.raises(NotFound, match="not found"):
            await client.exec("default", "web", ["true"]).__aenter__()


async def test_a_connection_that_breaks_is_told_as_such(tmp_path: Path) -> None:
    async def vanishing(connection: ServerConnection) -> None:
        await connection.send(b"\x01half")

    async with serving(vanishing, tmp_path) as client, client.exec("default", "web", ["sleep"]) as stream:
        with pytest.raises(ServiceUnavailable, match="before the program's end"):
            await stream.output()


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    async with HttpClient("https://cluster", "secret", socket=tmp_path / "none.sock") as client:
        with pytest.raises(ServiceUnavailable, match="no WebSocket"):
            await asyncio.wait_for(client.exec("default", "web", ["true"]).__aenter__(), 5)
