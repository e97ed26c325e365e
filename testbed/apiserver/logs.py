"""Container logs: the agent's answer, passed on as it comes."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from urllib.parse import urlencode

from testbed.api.objects import Object
from testbed.apiserver.agents import Agents, agent_of, agent_path, container_of, refused, unreachable
from testbed.apiserver.exchange import TEXT, Receive, Request, Send
from testbed.apiserver.resources import Resources
from testbed.client.connection import Connection, Exchange

FLAGS = ("follow", "previous", "timestamps")
NUMBERS = ("limitBytes", "sinceSeconds", "tailLines")


@dataclass(frozen=True)
class LogStream:
    """A log on its way to the client."""

    connection: Connection
    exchange: Exchange
    receive: Receive

    async def send(self, send: Send) -> None:
        """Pass the log on until it ends, the agent goes or the client leaves."""
        listener = asyncio.get_running_loop().create_task(self._close_when_left())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", TEXT)]})
            with suppress(OSError):
                async for chunk in self.exchange.chunks():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            listener.cancel()
            self.connection.abort()

    async def _close_when_left(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.connection.abort()


async def open_log(agents: Agents, resources: Resources, pod: Object, request: Request) -> LogStream:
    """The log of one container, from the agent that runs it; the agent's refusal as an ApiError."""
    path = agent_path(pod, container_of(pod, request.query.get("container", "")), "containerLogs")
    address, port = agent_of(resources, pod)
    asked = agents.request(address, f"{path}?{urlencode(_options(request))}")
    with ExitStack() as undo:
        try:
            connection = await agents.connect(address, port)
            undo.callback(connection.abort)
            exchange = connection.send(asked)
            if await exchange.head() != 200:
                raise refused(exchange.status, await exchange.body())
        except OSError as error:
            raise unreachable(address, port, error) from error
        undo.pop_all()
    return LogStream(connection, exchange, request.receive)


def _options(request: Request) -> dict[str, str]:
    """What the client asks of the log, spelled in one way."""
    options = {name: "true" for name in FLAGS if request.flag(name)}
    options |= {name: str(number) for name in NUMBERS if (number := request.number(name)) is not None}
    return options | {name: request.query[name] for name in ("sinceTime",) if name in request.query}
