"""exec: the client's WebSocket and the agent's, message by message (`v5.channel.k8s.io`, KEP-4006)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import orjson

from testbed.api.kinds import POD
from testbed.apiserver.agents import Agents, agent_of, agent_path, container_of, unreachable
from testbed.apiserver.auth import BearerToken
from testbed.apiserver.exchange import JSON, Request, Send
from testbed.apiserver.resources import Resources
from testbed.apiserver.routes import nothing_there, target
from testbed.errors import ApiError, BadRequest, api_error

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

PROTOCOL = "v5.channel.k8s.io"
PASSED_ON = ("command", "stdin", "stdout", "stderr", "tty")
CLOSE_REASON_LIMIT = 120
"""Bytes; a close frame holds at most 123 (RFC 6455, 5.5)."""


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
        await send({"type": "websocket.accept", "subprotocol": PROTOCOL})
        await _relay(request, send, agent)


async def _dialled(request: Request, resources: Resources, agents: Agents) -> ClientConnection:
    from websockets.asyncio.client import connect  # here, because only exec needs these 30 ms of imports
    from websockets.exceptions import InvalidHandshake, InvalidStatus

    addressed = target(request.path)
    if addressed.kind != POD or addressed.subresource != "exec":
        raise nothing_there()
    if PROTOCOL not in request.header(b"sec-websocket-protocol").decode("latin-1"):
        raise BadRequest(f"you must specify at least 1 of the WebSocket sub-protocols: {PROTOCOL}")
    pod = resources.get(POD, addressed.key).document
    path = agent_path(pod, container_of(pod, request.query.get("container", "")), "exec")
    options = [(name, value) for name, value in request.parameters if name in PASSED_ON]
    address, port = agent_of(resources, pod)
    try:
        return await connect(
            f"wss://{address}:{port}{path}?{urlencode(options)}",
            ssl=agents.tls,
            additional_headers=agents.headers,
            subprotocols=[PROTOCOL],  # type: ignore[list-item]
            compression=None,
            max_size=None,
            proxy=None,
        )
    except InvalidStatus as error:
        said = bytes(error.response.body or b"").decode(errors="replace").strip()
        raise api_error({"code": error.response.status_code, "message": said}) from error
    except (InvalidHandshake, OSError, TimeoutError) as error:
        raise unreachable(address, port, error) from error


async def _relay(request: Request, send: Send, agent: ClientConnection) -> None:
    """Both directions until either side ends; the agent's close is passed on."""
    upward = asyncio.create_task(_to_agent(request, agent))
    try:
        async for message in agent:
            data = message.encode() if isinstance(message, str) else message
            await send({"type": "websocket.send", "bytes": data})
    finally:
        upward.cancel()
    if agent.close_code is not None and not upward.done():
        reason = (agent.close_reason or "")[:CLOSE_REASON_LIMIT]
        await send({"type": "websocket.close", "code": 1000, "reason": reason})


async def _to_agent(request: Request, agent: ClientConnection) -> None:
    while (message := await request.receive())["type"] == "websocket.receive":
        data: Any = message.get("bytes")
        await agent.send(data if data is not None else message["text"].encode())
    await agent.close()


async def _refuse(send: Send, error: ApiError) -> None:
    body = orjson.dumps(error.status())
    headers = [(b"content-type", JSON), (b"content-length", b"%d" % len(body))]
    await send({"type": "websocket.http.response.start", "status": error.code, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
