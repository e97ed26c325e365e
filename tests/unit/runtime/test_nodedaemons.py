"""What node daemons are asked, over a real API server and a daemon that says what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from testbed.api.objects import Key, Object
from testbed.api.wellknown import METRICS_PORT
from testbed.client.http import HttpClient
from testbed.errors import BadInput, NotFound, TestbedError
from testbed.kernel.listening import listen
from testbed.node.http import Answer, Request, document, serving
from testbed.runtime.nodedaemons import Differences, Served, differences, served, workers
from testbed.runtime.servicepath import service_path
from tests.unit.apiserver.parts import TOKEN
from tests.unit.apiserver.parts import served as api_served

WEB = Key("default", "web")
ADDRESSES = {"a": "127.77.0.1", "b": "127.77.0.2", "client": "127.77.0.3"}
"""Of the loopback; nobody listens at b's."""


def node(name: str) -> Object:
    role = "external" if name == "client" else "worker"
    addresses = [{"type": "InternalIP", "address": ADDRESSES[name]}]
    kubelet = {"kubeletEndpoint": {"Address": "127.0.0.1", "Port": 1}}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"testbed/role": role}},
        "status": {"addresses": addresses, "daemonEndpoints": kubelet},
    }


async def daemon(request: Request) -> Answer:
    """Serves default/web, and differs by a line."""
    if request.path == "/proxy/diff":
        return document({"node": "a", "mode": "nftables", "differences": ["- x"]})
    if request.query != {"namespace": "default", "name": "web"}:
        raise NotFound("nothing")
    return document({"node": "a", "mode": "nftables", "ports": [{"path": ["x"]}], "healthCheck": None})


@asynccontextmanager
async def cluster(path: Path) -> AsyncIterator[HttpClient]:
    listener = listen(None, METRICS_PORT, IPv4Address(ADDRESSES["a"]))
    async with api_served(path) as api, serving(listener, daemon), HttpClient(f"unix://{api.socket}", TOKEN) as client:
        for name in ADDRESSES:
            await client.create(node(name))
        yield client


async def test_proxies_are_on_workers_alone(tmp_path: Path) -> None:
    async with cluster(tmp_path) as client:
        assert await workers(client) == ["a", "b"]
        assert await workers(client, "b") == ["b"]
        with pytest.raises(BadInput, match="there is no node x; there is a, b"):
            await workers(client, "x")
        with pytest.raises(BadInput, match="node client is outside the cluster and has no proxy"):
            await workers(client, "client")


async def test_daemons_say_what_they_serve_or_that_they_serve_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path) as client:
        assert await served(client, "a", WEB) == Served("a", "nftables", [{"path": ["x"]}])
        assert await served(client, "a", Key("default", "other")) == Served("a")


async def test_a_silent_daemon_does_not_keep_others_from_answering(tmp_path: Path) -> None:
    async with cluster(tmp_path) as client:
        spec = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
        await client.create(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": spec}
        )
        found = await asyncio.wait_for(service_path(client, WEB), 5)
        first, second = found.nodes
    assert (first.node, len(first.ports), first.silence) == ("a", 1, "")
    assert second.node == "b"
    assert second.silence.startswith("error trying to reach service: dial 127.77.0.2:10249: ")


async def test_a_service_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    async with cluster(tmp_path) as client:
        with pytest.raises(BadInput, match="there is no Service web in namespace default; there is none at all"):
            await service_path(client, WEB)


async def test_differences_come_line_by_line_and_silence_is_an_error(tmp_path: Path) -> None:
    async with cluster(tmp_path) as client:
        assert await differences(client, "a") == Differences("a", "nftables", ["- x"])
        with pytest.raises(TestbedError, match="the node daemon of b does not answer: error trying") as raised:
            await differences(client, "b")
    assert raised.value.exit_code == 4
