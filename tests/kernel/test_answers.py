"""Answers over HTTP in namespaces: one process listens at the same port of each of its nodes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import IPv4Address

import pytest

from testbed.api.objects import Key
from testbed.kernel.listening import listen
from testbed.node.healthchecks import HealthChecks
from testbed.node.http import Answer, Request, serving
from testbed.proxy.virtualport import HealthCheck
from tests.kernel.asking import asked
from tests.kernel.lab import Lab

WEB, SHOP = Key("default", "web"), Key("default", "shop")
A, B = "198.18.0.10", "198.18.0.11"


@pytest.fixture
def nodes(lab: Lab) -> Lab:
    lab.plug("tb-b-a", f"{A}/16")
    lab.plug("tb-b-b", f"{B}/16")
    return lab


@asynccontextmanager
async def checks(lab: Lab, place: str) -> AsyncIterator[HealthChecks]:
    found = HealthChecks(partial(listen, lab.place(place)), lambda: True)
    try:
        yield found
    finally:
        await found.close()


async def test_nodes_answer_at_one_port_each_for_itself(nodes: Lab) -> None:
    async def say(name: str, _: Request) -> Answer:
        return Answer(json.dumps(name))

    async with (
        serving(listen(nodes.place("tb-b-a"), 10249), partial(say, "a")),
        serving(listen(nodes.place("tb-b-b"), 10249), partial(say, "b")),
    ):
        assert (await asked(nodes, "tb-b-b", A, 10249)).document == "a"
        assert (await asked(nodes, "tb-b-a", B, 10249)).document == "b"
        assert (await asked(nodes, "tb-b-a", "127.0.0.1", 10249)).document == "a"


async def test_a_health_check_tells_the_endpoints_of_the_node_that_is_asked(nodes: Lab) -> None:
    async with checks(nodes, "tb-b-a") as a, checks(nodes, "tb-b-b") as b:
        await a.sync({WEB: HealthCheck(32000, 2)})
        await b.sync({WEB: HealthCheck(32000, 0)})
        here, there = await asked(nodes, "tb-b-b", A, 32000), await asked(nodes, "tb-b-a", B, 32000)
    assert (here.status, here.document["localEndpoints"]) == (200, 2)
    assert (there.status, there.document["localEndpoints"]) == (503, 0)


async def test_a_health_check_goes_with_its_service_and_leaves_others_be(nodes: Lab) -> None:
    async with checks(nodes, "tb-b-a") as a:
        await a.sync({WEB: HealthCheck(32000, 1), SHOP: HealthCheck(32001, 1)})
        await a.sync({SHOP: HealthCheck(32001, 1)})
        with pytest.raises(ConnectionRefusedError):
            await asked(nodes, "tb-b-b", A, 32000)
        assert (await asked(nodes, "tb-b-b", A, 32001)).status == 200
        await a.sync({WEB: HealthCheck(32000, 1)})
        assert (await asked(nodes, "tb-b-b", A, 32000)).status == 200


async def test_a_health_check_listens_where_node_ports_are_served(nodes: Lab) -> None:
    async with checks(nodes, "tb-b-a") as a:
        await a.sync({WEB: HealthCheck(32000, 1)}, [IPv4Address(A)])
        assert (await asked(nodes, "tb-b-a", A, 32000)).status == 200
        with pytest.raises(ConnectionRefusedError):
            await asked(nodes, "tb-b-a", "127.0.0.1", 32000)


async def test_a_port_that_a_process_of_the_node_has_is_taken_when_it_lets_go(nodes: Lab) -> None:
    async with checks(nodes, "tb-b-a") as a:
        with listen(nodes.place("tb-b-a"), 32000):
            await a.sync({WEB: HealthCheck(32000, 1)})
        await a.sync({WEB: HealthCheck(32000, 1)})
        assert (await asked(nodes, "tb-b-b", A, 32000)).status == 200
