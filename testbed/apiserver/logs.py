"""Container logs: the agent's answer, passed on as it comes."""

from __future__ import annotations

from contextlib import ExitStack
from urllib.parse import urlencode

from testbed.api.objects import Object
from testbed.apiserver.agents import Agents, agent_of, agent_path, container_of, refused, unreachable
from testbed.apiserver.exchange import TEXT, Request
from testbed.apiserver.relay import Relay
from testbed.apiserver.resources import Resources

FLAGS = ("follow", "previous", "timestamps")
NUMBERS = ("limitBytes", "sinceSeconds", "tailLines")


async def open_log(agents: Agents, resources: Resources, pod: Object, request: Request) -> Relay:
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
    return Relay(connection, exchange, request.receive, [(b"content-type", TEXT)])


def _options(request: Request) -> dict[str, str]:
    """What the client asks of the log, spelled in one way."""
    options = {name: "true" for name in FLAGS if request.flag(name)}
    options |= {name: str(number) for name in NUMBERS if (number := request.number(name)) is not None}
    return options | {name: request.query[name] for name in ("sinceTime",) if name in request.query}
