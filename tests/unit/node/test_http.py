"""The small HTTP server of node daemons."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import pytest

from testbed.errors import KernelError, NotFound
from testbed.kernel.listening import listen
from testbed.node.http import Answer, Request, document, serving
from tests.unit.node.asking import ask, say

LOOPBACK = IPv4Address("127.0.0.1")


async def echo(request: Request) -> Answer:
    """Say what was asked; refuse two paths."""
    if request.path == "/nothing":
        raise NotFound("there is nothing")
    if request.path == "/broken":
        raise KernelError("the kernel says no")
    return document({"path": request.path, **request.query}, headers={"X-Extra": "yes"})


@asynccontextmanager
async def server() -> AsyncIterator[int]:
    """Its port."""
    listener = listen(None, 0, LOOPBACK)
    async with serving(listener, echo):
        yield listener.getsockname()[1]


async def test_path_and_query_arrive_decoded_and_headers_go_back() -> None:
    async with server() as port:
        reply = await ask(port, "/a%20b?name=x%2Fy&empty=")
    assert (reply.status, reply.document) == (200, {"path": "/a b", "name": "x/y", "empty": ""})
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-extra"] == "yes"
    assert int(reply.headers["content-length"]) == len(reply.text)


async def test_head_is_answered_without_a_body() -> None:
    async with server() as port:
        reply = await ask(port, "/a", method="HEAD")
    assert (reply.status, reply.text, reply.headers["content-length"]) == (200, "", "14")


@pytest.mark.parametrize(
    ("target", "code", "said"), [("/nothing", 404, "there is nothing"), ("/broken", 500, "the kernel says no")]
)
async def test_an_error_is_a_status(target: str, code: int, said: str) -> None:
    async with server() as port:
        reply = await ask(port, target)
    assert (reply.status, reply.document["kind"], reply.document["message"]) == (code, "Status", said)


async def test_other_methods_are_refused() -> None:
    async with server() as port:
        assert (await ask(port, "/a", method="POST")).status == 405


async def test_what_is_no_http_is_refused() -> None:
    async with server() as port:
        assert (await say(port, b"hello\r\n\r\n")).status == 400


async def test_a_client_that_leaves_early_harms_nobody() -> None:
    async with server() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HT")
        writer.close()
        await writer.wait_closed()
        assert (await ask(port, "/a")).status == 200


async def test_nobody_answers_after_the_block() -> None:
    async with server() as port:
        pass
    with pytest.raises(ConnectionRefusedError):
        await ask(port, "/a")


def test_a_port_that_is_taken_is_named() -> None:
    with listen(None, 0, LOOPBACK) as first:
        port = first.getsockname()[1]
        with pytest.raises(KernelError, match=rf"listen at 127.0.0.1:{port}: Address already in use"):
            listen(None, port, LOOPBACK)
