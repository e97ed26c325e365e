"""A load balancer from end to end: controllers, switch and service rules, asked by a machine outside and by pods."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from testbed.api.kinds import DEPLOYMENT, POD, SERVICE
from testbed.api.objects import status
from testbed.client.http import HttpClient
from testbed.waiting import wait_until_async
from tests.e2e.asking import Answer, Question, ask
from tests.e2e.clusters import TOPOLOGIES, cluster_of

OUTSIDE = "203.0.113.10"
WITHIN_S = 10.0


@pytest.mark.parametrize("runtime", ["netns", "docker"])
def test_clients_outside_come_in_by_load_balancers(runtime: str, tmp_path: Path) -> None:
    with cluster_of(TOPOLOGIES / "load-balancer.yaml", runtime, tmp_path) as cluster:
        cluster.up().expect()
        asyncio.run(_followed(cluster.client))


async def _followed(connect: Callable[[], HttpClient]) -> None:
    async with connect() as client:
        cloud, local = [await _address(client, name) for name in ("cloud", "cloud-local")]
        assert OUTSIDE not in await _seen(client, "client", cloud), "a node stands in for the client"
        assert await _seen(client, "client", local) == {OUTSIDE}, "the server sees the client itself"
        [pod, *_] = (await client.list(POD, "default", label_selector="app=netexec")).items
        for address in (cloud, local):
            assert await _seen(client, pod["metadata"]["name"], address), "pods come in by the same address"
        await client.patch(DEPLOYMENT, "netexec", {"spec": {"replicas": 1}}, "default", subresource="scale")
        await _becomes(lambda: _outcomes(client, local), {"OK"}, "only the node with the last pod is sent to")
        assert await _seen(client, "client", local) == {OUTSIDE}
        await client.patch(DEPLOYMENT, "netexec", {"spec": {"replicas": 0}}, "default", subresource="scale")
        await _becomes(lambda: _outcomes(client, cloud), {"REFUSED"}, "nodes refuse for a Service without endpoints")
        await _becomes(lambda: _outcomes(client, local), {"TIMEOUT"}, "nobody is sent to where no node has endpoints")
        await client.patch(SERVICE, "cloud", {"spec": {"type": "ClusterIP"}}, "default")
        await _becomes(lambda: _outcomes(client, cloud), {"TIMEOUT"}, "the address has gone back")


async def _address(client: HttpClient, service: str) -> str:
    ingress = status(await client.get(SERVICE, service, "default"))["loadBalancer"]["ingress"]
    assert [entry["ipMode"] for entry in ingress] == ["VIP"]
    return str(ingress[0]["ip"])


async def _seen(client: HttpClient, pod: str, address: str) -> set[str]:
    """Whom the servers saw behind 20 new connections; every one must be answered, TCP and UDP."""
    questions: list[Question] = [("http", {"host": address, "port": 80, "path": "/clientip"})] * 20
    questions += [("udp", {"host": address, "port": 81, "message": "clientip"})] * 4
    answers = await ask(client, "default", pod, questions)
    assert Counter(answer["outcome"] for answer in answers) == {"OK": len(questions)}, answers
    return {_source(answer) for answer in answers}


def _source(answer: Answer) -> str:
    return str(answer["body"]).rpartition(":")[0]


async def _outcomes(client: HttpClient, address: str) -> set[str]:
    questions: list[Question] = [("tcp", {"host": address, "port": 80, "timeout_s": 0.5})] * 8
    return {answer["outcome"] for answer in await ask(client, "default", "client", questions)}


async def _becomes(look: Callable[[], Awaitable[set[str]]], wanted: set[str], what: str) -> None:
    async def check() -> bool:
        return await look() == wanted

    await wait_until_async(check, WITHIN_S, what)
