"""The proxy of one node in its namespace: what it serves, what it says of that, and what it notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from testbed.api.objects import Key
from testbed.errors import KernelError
from testbed.kernel.sysctl import set_sysctls
from testbed.network.nodenet import NodeNet
from testbed.node.changes import Changes
from testbed.node.handles import open_handles
from testbed.node.network import Place
from testbed.node.proxy import NodeProxy
from testbed.proxy.services import Snapshot
from testbed.proxy.virtualport import Endpoint, HealthCheck, VirtualPort
from testbed.topology.load import load_topology
from testbed.topology.plan import plan
from testbed.waiting import wait_until_async
from tests.kernel.asking import Heard, asked
from tests.kernel.lab import Lab

TOPOLOGY = Path(__file__).parents[2] / "topologies" / "two-nodes.yaml"
A, OTHER = "tb-b-a", "tb-b-b"
ADDRESS, VIP = "198.18.0.10", "10.96.0.77"
WEB = Key("default", "web")
SPEC = plan(load_topology(TOPOLOGY).model, runtime="netns")
HERE = Place(NodeNet("a", IPv4Address(ADDRESS), SPEC.nodes[0].pod_cidr, "", "vxlan"), (), SPEC)  # type: ignore[arg-type]


@dataclass
class Node:
    """Node a, and a stranger on the underlay who asks it."""

    lab: Lab
    proxy: NodeProxy
    sequence: int = field(default=0)

    async def serve(self, *endpoints: str, health: int | None = None) -> None:
        """Port 80 of default/web with these endpoints."""
        self.sequence += 1
        found = tuple(Endpoint(IPv4Address(each), 8080) for each in endpoints)
        port = VirtualPort(WEB, "http", "tcp", IPv4Address(VIP), 80, cluster=found, serving=frozenset(found))
        checks = {} if health is None else {WEB: HealthCheck(32000, health)}
        await self.proxy.sync(HERE, "", Snapshot({WEB: (port,)}, checks, self.sequence, self.sequence, None))

    async def ask(self, target: str, port: int = 10249) -> Heard:
        return await asked(self.lab, OTHER, ADDRESS, port, target)

    async def differences(self) -> list[str]:
        found: list[str] = (await self.ask("/proxy/diff")).document["differences"]
        return found

    async def path(self) -> str:
        ports: list[dict[str, Any]] = (await self.ask("/proxy/service?name=web")).document["ports"]
        return "\n".join(line for port in ports for line in port["path"])


@pytest.fixture
async def node(lab: Lab) -> AsyncIterator[Node]:
    lab.plug(A, f"{ADDRESS}/16")
    lab.plug(OTHER, "198.18.0.11/16")
    set_sysctls(lab.place(A), {"net.ipv4.ip_forward": "1"})
    with closing(open_handles(lab.place(A))) as handles:
        proxy = NodeProxy("a", handles, Changes())
        answering = asyncio.create_task(proxy.answer())
        found = Node(lab, proxy)

        async def listens() -> bool:
            try:
                return (await found.ask("/healthz")).text == "ok"
            except OSError:
                return False

        await wait_until_async(listens, 2, "answers")
        yield found
        answering.cancel()
        await asyncio.wait([answering])
        await proxy.close()


async def test_before_the_first_sync_there_is_nothing_to_explain(node: Node) -> None:
    for target in ("/proxy/diff", "/proxy/service?name=web"):
        heard = await node.ask(target)
        assert (heard.status, heard.document["message"]) == (503, "this node's rules have not been loaded yet")
    assert (await node.ask("/proxyMode")).text == ""


async def test_what_is_told_is_what_the_kernel_holds(node: Node) -> None:
    await node.serve("10.244.0.7", "10.244.1.7")
    assert "map services { 10.96.0.77 . tcp . 80 : goto lb-2 }" in await node.path()
    assert await node.differences() == []
    assert (await node.ask("/proxyMode")).text == "nftables"
    await node.serve("10.244.0.7")
    assert "map services { 10.96.0.77 . tcp . 80 : goto lb-1 }" in await node.path()


async def test_what_a_stranger_deletes_is_a_difference_until_the_next_sync(node: Node) -> None:
    await node.serve("10.244.0.7")
    node.lab.nft(A).load(f"delete element ip testbed-proxy services {{ {VIP} . tcp . 80 }}\n")
    assert await node.differences() == ["+ services { 10.96.0.77 . tcp . 80 : goto lb-1 }"]
    await node.serve("10.244.0.7")
    assert await node.differences() == []
    assert "\ntestbed_proxy_foreign_edits_total 1\n" in (await node.ask("/metrics")).text


async def test_the_health_check_of_a_service_comes_and_goes_with_it(node: Node) -> None:
    await node.serve("10.244.0.7", health=1)
    assert (await node.ask("/", 32000)).status == 200
    assert (await node.ask("/proxy/service?name=web")).document["healthCheck"] == {"port": 32000, "local_endpoints": 1}
    await node.serve(health=0)
    assert (await node.ask("/", 32000)).status == 503
    await node.serve()
    with pytest.raises(ConnectionRefusedError):
        await node.ask("/", 32000)


async def test_a_port_that_somebody_has_is_told(node: Node) -> None:
    with closing(open_handles(node.lab.place(A))) as handles, pytest.raises(KernelError, match=":10249"):
        await NodeProxy("a", handles, Changes()).answer()
