"""The HTTP client's own transport, against a server that does exactly what each test tells it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from testbed.client.connection import HIGH_WATER, Connections, Server, StaleConnection
from testbed.waiting import wait_until_async

REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def serving(
    path: Path, behaviour: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[Connections]:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behaviour(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(served, str(path / "socket"))
    connections = Connections(Server(socket=path / "socket").connect)
    try:
        yield connections
    finally:
        connections.close()
        server.close()
        await server.wait_closed()


async def fetch(connections: Connections, *, is_safe: bool = True) -> tuple[int, bytes]:
    return await connections.fetch(REQUEST, timeout_s=5.0, is_safe=is_safe)


async def test_a_connection_is_used_again(tmp_path: Path) -> None:
    accepted = 0

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(OK)

    async with serving(tmp_path, behaviour) as connections:
        for _ in range(5):
            assert await fetch(connections) == (200, b"ok")
        assert accepted == 1
        assert await asyncio.gather(*(fetch(connections) for _ in range(3))) == [(200, b"ok")] * 3
    assert accepted == 3


async def test_a_connection_that_the_server_wants_closed_is_not_used_again(tmp_path: Path) -> None:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    async with serving(tmp_path, behaviour) as connections:
        for _ in range(3):
            assert await fetch(connections, is_safe=False) == (200, b"ok")


async def answer_once_then_hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(OK)
    await reader.readuntil(b"\r\n\r\n")


async def test_a_safe_request_survives_a_kept_connection_that_has_died(tmp_path: Path) -> None:
    async with serving(tmp_path, answer_once_then_hang_up) as connections:
        for _ in range(3):
            assert await fetch(connections) == (200, b"ok")


async def test_a_write_is_never_sent_twice(tmp_path: Path) -> None:
    async with serving(tmp_path, answer_once_then_hang_up) as connections:
        assert await fetch(connections, is_safe=False) == (200, b"ok")
        with pytest.raises(StaleConnection):
            await fetch(connections, is_safe=False)


async def test_an_answer_in_pieces_is_put_together(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for position in range(len(answer)):
            writer.write(answer[position : position + 1])
            await writer.drain()

    async with serving(tmp_path, behaviour) as connections:
        assert await fetch(connections) == (404, b"abcde")


async def test_a_stream_is_told_as_it_comes(tmp_path: Path) -> None:
    read = asyncio.Event()

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await read.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    async with serving(tmp_path, behaviour) as connections, connections.exchange(REQUEST) as exchange:
        assert await exchange.head() == 200
        chunks = exchange.chunks()
        assert await anext(chunks) == b"one"
        read.set()
        assert [chunk async for chunk in chunks] == [b"two"]


async def test_a_server_that_is_faster_than_its_reader_has_to_wait(tmp_path: Path) -> None:
    total, sent = 16 * HIGH_WATER, 0

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n".encode())
        for _ in range(16):
            writer.write(b"x" * HIGH_WATER)
            await writer.drain()
            sent += HIGH_WATER

    async with serving(tmp_path, behaviour) as connections, connections.exchange(REQUEST) as exchange:
        chunks = exchange.chunks()
        received = len(await anext(chunks))
        await asyncio.sleep(0.05)
        assert sent < total
        received += sum([len(chunk) async for chunk in chunks])
        assert received == total


async def test_a_connection_is_used_again_after_an_answer_that_was_read_late(tmp_path: Path) -> None:
    size = HIGH_WATER * 5 // 4

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size)

    async with serving(tmp_path, behaviour) as connections:
        async with connections.exchange(REQUEST) as exchange:

            async def all_has_come() -> bool:
                return exchange.is_complete

            await wait_until_async(all_has_come, 5, "the answer arrives unread")
            assert len(await exchange.body()) == size
        assert await connections.fetch(REQUEST, timeout_s=2, is_safe=True) == (200, b"x" * size)


async def test_a_broken_answer_is_a_connection_error(tmp_path: Path) -> None:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    async with serving(tmp_path, behaviour) as connections:
        with pytest.raises(ConnectionError, match="closed the connection"):
            await fetch(connections)


async def test_what_is_no_http_is_a_connection_error(tmp_path: Path) -> None:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        await reader.read()

    async with serving(tmp_path, behaviour) as connections:
        with pytest.raises(ConnectionError, match=r"does not speak HTTP/1\.1"):
            await fetch(connections)


async def test_a_request_given_up_closes_its_connection_and_no_other(tmp_path: Path) -> None:
    ended = 0

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ended
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        ended += 1

    async def one_ended() -> bool:
        return ended == 1

    async with serving(tmp_path, behaviour) as connections:
        patient = asyncio.create_task(fetch(connections))
        with pytest.raises(TimeoutError):
            await connections.fetch(REQUEST, timeout_s=0.05, is_safe=True)
        await wait_until_async(one_ended, 5, "the server sees one connection end")
        assert not patient.done()
        connections.close()
        with pytest.raises(ConnectionError):
            await patient
