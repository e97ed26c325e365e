"""Which pods take which ports of which node."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from testbed.agent.hostports import Doors, HostPorts, NodeTable, ports_by_node
from testbed.api.kinds import POD
from testbed.api.objects import Object
from testbed.client.fake import FakeClient
from testbed.client.informer import Informer
from testbed.errors import KernelError
from testbed.kernel.conntrack import Flow
from testbed.kernel.fake import FakeNft
from testbed.network.hostports import HostPort, stale_flows
from testbed.waiting import wait_until_async
from tests.unit.agent.host import SOON_S
from tests.unit.agent.specs import node, pod

FIRST, SECOND, NODE, AWAY = (
    IPv4Address(address) for address in ("10.244.1.2", "10.244.1.3", "198.18.0.11", "10.96.0.10")
)


def exposed(name: str, address: IPv4Address, *ports: dict[str, Any], created: str = "", **fields: Any) -> Object:
    obj = pod(name, container={"ports": list(ports)}, **fields)
    obj["metadata"]["creationTimestamp"] = created
    return obj | {"status": {"podIP": str(address), "phase": "Running"}}


WEB = {"containerPort": 80, "hostPort": 8080}


def test_each_host_port_of_a_pod_leads_to_its_container_port() -> None:
    named = {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": str(NODE)}
    found = ports_by_node([exposed("web", FIRST, WEB, named, {"containerPort": 1})])
    assert found == {"a": [HostPort("tcp", 8080, FIRST, 80), HostPort("udp", 53, FIRST, 53, NODE)]}


def test_pods_without_an_address_of_their_own_have_none() -> None:
    waiting, done = exposed("waiting", FIRST, WEB), exposed("done", FIRST, WEB)
    waiting["status"] = {}
    done["status"]["phase"] = "Succeeded"
    assert ports_by_node([waiting, done, exposed("host", NODE, WEB, hostNetwork=True)]) == {}


def test_of_two_claims_that_of_the_pod_which_stays_counts_and_then_the_older() -> None:
    going = exposed("going", FIRST, WEB, created="2026-01-01T00:00:00Z")
    going["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    old = exposed("old", SECOND, WEB, created="2026-01-01T00:00:01Z")
    young = exposed("young", IPv4Address("10.244.1.4"), WEB, created="2026-01-01T00:00:02Z")
    assert ports_by_node([young, going, old]) == {"a": [HostPort("tcp", 8080, SECOND, 80)]}


async def test_the_table_follows_pods_and_is_gone_with_the_last(tmp_path: Path) -> None:
    client, nft = FakeClient(), FakeNft()
    pods = Informer(client, POD)
    ports = HostPorts(pods, Doors(lambda _: tmp_path, lambda _: nft))
    ports.follow([node("a", 1), node("client", 9, role="external")])
    tasks = [asyncio.create_task(run) for run in (pods.run(), ports.run())]

    async def until_loaded(times: int) -> str:
        async def loaded() -> bool:
            return len(nft.loaded) == times

        await wait_until_async(loaded, SOON_S, f"load {times}")
        return nft.loaded[-1]

    created = exposed("web", FIRST, WEB)
    await client.create(created)
    await client.patch(POD, "web", {"status": created["status"]}, "default", subresource="status")
    assert "tcp . 8080 : 10.244.1.2 . 80" in await until_loaded(1)
    await client.delete(POD, "web", "default", grace_period_s=0)
    assert "tcp" not in await until_loaded(2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_node_that_ends_while_it_is_looked_at_gets_no_table(tmp_path: Path) -> None:
    nft = FakeNft()
    NodeTable(node("a", 1), Doors(lambda _: tmp_path / "gone", lambda _: nft)).sync([HostPort("tcp", 8080, FIRST, 80)])
    assert nft.loaded == []


def test_a_table_that_is_refused_again_and_again_takes_one_handle(tmp_path: Path) -> None:
    class Refusing(FakeNft):
        def load(self, script: str) -> None:
            raise KernelError(f"refused: {script}")

    opened: list[Path] = []

    def opening(place: Path) -> Refusing:
        opened.append(place)
        return Refusing()

    table = NodeTable(node("a", 1), Doors(lambda _: tmp_path, opening))
    for _ in range(2):
        with pytest.raises(KernelError):
            table.sync([HostPort("tcp", 8080, FIRST, 80)])
    assert len(opened) == 1


def flow(destination: IPv4Address, number: int, answers: IPv4Address) -> Flow:
    return Flow(IPv4Address("203.0.113.9"), 5555, destination, number, answers, b"")


def test_flows_to_a_host_port_that_lead_elsewhere_are_stale_and_no_others() -> None:
    ports = [HostPort("udp", 53, SECOND, 53), HostPort("tcp", 80, SECOND, 80)]
    stale = [flow(NODE, 53, FIRST), flow(NODE, 53, NODE)]
    fresh = [flow(NODE, 53, SECOND), flow(AWAY, 53, FIRST), flow(NODE, 80, FIRST)]
    assert stale_flows([*stale, *fresh], ports, {NODE}) == stale
