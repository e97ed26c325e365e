"""exec: the client's WebSocket and the agent's, message by message (`v5.channel.k8s.io`, KEP-4006)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlencode

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import CloseCode
from websockets.typing import Subprotocol

from testbed.api.kinds import POD
from testbed.api.wellknown import EXEC_SUBPROTOCOL
from testbed.apiserver.agents import Agents, agent_of, agent_path, container_of, refused, unreachable
from testbed.apiserver.auth import BearerToken
from testbed.apiserver.exchange import JSON, Request, Send
from testbed.apiserver.refusals import no_subprotocol
from testbed.apiserver.resources import Resources
from testbed.apiserver.routes import nothing_there, target
from testbed.errors import ApiError

PASSED_ON = ("command", "stdin", "stdout", "stderr", "tty")
OPEN_TIMEOUT_S = 20.0
"""For the handshake with an agent: less than a client waits for ours."""


async def serve(request: Request, send: Send, token: BearerToken, resources: Resources, agents: Agents) -> None:
    """One WebSocket, from its handshake to its end. A refusal is the handshake's HTTP response."""
    await request.receive()
    try:
        token.require(request.path, request.header(b"authorization"))
        agent = await _dialled(request, resources, agents)
    except ApiError as error:
        await _refuse(send, error)
        return
    async with agent:
        await send({"type": "websocket.accept", "subprotocol": EXEC_SUBPROTOCOL})
        await _relay(request, send, agent)


async def _dialled(request: Request, resources: Resources, agents: Agents) -> ClientConnection:
    addressed = target(request.path)
    if addressed.kind != POD or addressed.subresource != "exec":
        raise nothing_there()
    if EXEC_SUBPROTOCOL not in request.header(b"sec-websocket-protocol").decode("latin-1"):
        raise no_subprotocol()
    pod = resources.get(POD, addressed.key).document
    path = agent_path(pod, container_of(pod, request.query.get("container", "")), "exec")
    options = urlencode([(name, value) for name, value in request.parameters if name in PASSED_ON])
    address, port = agent_of(resources, pod)
    try:
        return await connect(
            f"wss://{address}:{port}{path}?{options}",
            ssl=agents.tls,
            additional_headers=agents.headers,
            subprotocols=[Subprotocol(EXEC_SUBPROTOCOL)],
            compression=None,
            max_size=None,
            open_timeout=OPEN_TIMEOUT_S,
            proxy=None,
        )
    except InvalidStatus as error:
        raise refused(error.response.status_code, bytes(error.response.body or b"")) from error
    except (InvalidHandshake, OSError, TimeoutError) as error:
        raise unreachable(address, port, error) from error


async def _relay(request: Request, send: Send, agent: ClientConnection) -> None:
    """Both directions until either side ends. The agent's end, good or bad, is the client's."""
    has_left = asyncio.Event()
    upward = asyncio.create_task(_to_agent(request, agent, has_left))
    code, reason = CloseCode.NORMAL_CLOSURE, ""
    try:
        async for message in agent:
            await send({"type": "websocket.send", "bytes": message.encode() if isinstance(message, str) else message})
    except ConnectionClosed:
        code, reason = CloseCode.INTERNAL_ERROR, "the connection to the agent broke"
    finally:
        upward.cancel()
    if not has_left.is_set():
        await send({"type": "websocket.close", "code": int(code), "reason": reason})


async def _to_agent(request: Request, agent: ClientConnection, has_left: asyncio.Event) -> None:
    """Until the client leaves, which closes the agent's side, or the agent ends, of which the other direction tells."""
    with suppress(ConnectionClosed):
        while (message := await request.receive())["type"] == "websocket.receive":
            data = message.get("bytes")
            await agent.send(data if data is not None else message["text"].encode())
        has_left.set()
        await agent.close()


async def _refuse(send: Send, error: ApiError) -> None:
    body = orjson.dumps(error.status())
    headers = [(b"content-type", JSON), (b"content-length", b"%d" % len(body))]
    await send({"type": "websocket.http.response.start", "status": error.code, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
