"""Logs and exec: what the agent says reaches the client, and a missing agent is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.asyncio.client import unix_connect
from websockets.exceptions import ConnectionClosed

from testbed.api.kinds import NODE, POD
from testbed.client.http import HttpClient
from testbed.errors import BadRequest, NotFound, ServiceUnavailable, Unauthorized
from tests.unit.apiserver.agent import PROTOCOL, Agent, dead_port, node, running
from tests.unit.apiserver.parts import TOKEN, Wire, pod, served


@pytest.fixture
async def agent_and_api(tmp_path: Path) -> AsyncIterator[tuple[Agent, Wire]]:
    async with running(tmp_path) as (agent, agents), served(tmp_path, agents=agents) as api:
        await api.resources.create(NODE, "", node(agent.port))
        await api.resources.create(POD, "default", pod("web", nodeName="n"))
        yield agent, api


def client_of(api: Wire, token: str = TOKEN) -> HttpClient:
    return HttpClient(f"unix://{api.socket}", token)


async def test_a_log_comes_from_the_agent_of_the_pods_node(agent_and_api: tuple[Agent, Wire]) -> None:
    agent, api = agent_and_api
    async with client_of(api) as client:
        chunks = [chunk async for chunk in client.logs("default", "web", follow=True, tail=5)]
    assert b"".join(chunks) == b"one\ntwo\n"
    ((path, authorization),) = agent.asked
    assert path.partition("?")[0] == "/containerLogs/default/web/main"
    assert {"follow=true", "tailLines=5"} <= set(path.partition("?")[2].split("&"))
    assert authorization == "Bearer agents-token"


async def test_what_the_agent_refuses_is_refused_alike(agent_and_api: tuple[Agent, Wire]) -> None:
    _, api = agent_and_api
    await api.resources.create(POD, "default", pod("absent", nodeName="n"))
    with pytest.raises(NotFound, match="no such pod"):
        await log_of(api, "absent")


async def test_exec_is_relayed_both_ways_to_its_end(agent_and_api: tuple[Agent, Wire]) -> None:
    agent, api = agent_and_api

    async def typed() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b" * 100_000

    async with client_of(api) as client, client.exec("default", "web", ["cat", "-"], stdin=typed()) as stream:
        output = await stream.output()
    assert output.stdout == b"a" + b"b" * 100_000
    assert output.exit_code == 0
    ((path, _),) = agent.asked
    assert path.startswith("/exec/default/web/main?command=cat&command=-&")
    assert "stdin=" in path


async def test_exec_needs_the_token_a_pod_and_a_container(agent_and_api: tuple[Agent, Wire]) -> None:
    _, api = agent_and_api
    await api.resources.create(POD, "default", pod("unbound"))

    async def tried(name: str, *, container: str = "", token: str = TOKEN) -> None:
        async with client_of(api, token) as client, client.exec("default", name, ["true"], container=container):
            pass

    with pytest.raises(Unauthorized):
        await tried("web", token="wrong")
    with pytest.raises(NotFound, match='pods "nobody" not found'):
        await tried("nobody")
    with pytest.raises(BadRequest, match="container x is not valid for pod web"):
        await tried("web", container="x")
    with pytest.raises(BadRequest, match="does not have a host assigned"):
        await tried("unbound")


async def test_an_agent_that_breaks_off_is_told(agent_and_api: tuple[Agent, Wire]) -> None:
    agent, api = agent_and_api
    agent.breaks_off = True
    with pytest.raises(ServiceUnavailable, match="the connection to the agent broke"):
        await exec_in(api, "web")


async def test_a_client_that_still_types_is_told_of_the_end(agent_and_api: tuple[Agent, Wire]) -> None:
    agent, api = agent_and_api
    agent.is_deaf = True
    url, headers = "ws://api/api/v1/namespaces/default/pods/web/exec?stdin=1", {"Authorization": f"Bearer {TOKEN}"}
    async with unix_connect(str(api.socket), url, subprotocols=[PROTOCOL], additional_headers=headers) as typing:
        with suppress(ConnectionClosed):
            while True:
                await typing.send(b"\x00" + b"x" * 100_000)
        assert [message async for message in typing][:1]
        assert typing.close_code == 1000


async def test_a_client_that_leaves_ends_what_it_began(agent_and_api: tuple[Agent, Wire]) -> None:
    agent, api = agent_and_api
    async with client_of(api) as client:
        async with client.exec("default", "web", ["cat"]) as stream:
            await stream.send(b"a")
        await asyncio.wait_for(agent.ended.wait(), 2.0)


async def test_an_agent_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, agents), served(tmp_path, agents=agents) as api:
        await api.resources.create(NODE, "", node(await dead_port()))
        await api.resources.create(POD, "default", pod("web", nodeName="n"))
        await api.resources.create(POD, "default", pod("lost", nodeName="gone"))
        for ask in (log_of, exec_in):
            with pytest.raises(ServiceUnavailable, match="error dialing backend: the agent at 127"):
                await ask(api, "web")
            with pytest.raises(ServiceUnavailable, match="no agent has announced itself for node gone"):
                await ask(api, "lost")


async def log_of(api: Wire, name: str) -> bytes:
    async with client_of(api) as client:
        return b"".join([chunk async for chunk in client.logs("default", name)])


async def exec_in(api: Wire, name: str) -> int:
    async with client_of(api) as client, client.exec("default", name, ["true"]) as stream:
        return (await stream.output()).exit_code
