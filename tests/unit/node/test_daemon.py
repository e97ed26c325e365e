"""Nodes come and go; what they need is done over a kernel in memory."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from testbed.api.kinds import LEASE, NODE, Kind
from testbed.api.objects import Key, Object, condition
from testbed.client.fake import FakeClient
from testbed.errors import ServiceUnavailable
from testbed.kernel.conntrack import Flow
from testbed.kernel.fake import FakeLinks, FakeNft
from testbed.kernel.links import Peer
from testbed.kernel.listening import ANY, listen
from testbed.node.daemon import NodeDaemons
from testbed.node.handles import Handles
from testbed.topology.load import load_topology
from testbed.topology.plan import plan
from testbed.waiting import wait_until_async
from tests.unit.proxy.doors import fake_doors

SPEC = plan(load_topology(Path(__file__).parents[3] / "topologies" / "two-nodes.yaml").model, runtime="netns")


class NoFlows:
    """An empty connection table."""

    def udp_flows(self) -> list[Flow]:
        return []

    def delete(self, flows: Iterable[Flow]) -> None:
        """Nothing is there."""


class Losses:
    """Tells of a loss when told to."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._fd

    def lost(self) -> bool:
        return bool(os.eventfd_read(self._fd))

    def lose(self) -> None:
        os.eventfd_write(self._fd, 1)

    def close(self) -> None:
        os.close(self._fd)


def reached(
    source: IPv4Address, targets: Collection[IPv4Address], size: int, *, timeout_s: float
) -> dict[IPv4Address, str]:
    """Every packet arrives."""
    return {}


def listen_anywhere(port: int, address: IPv4Address = ANY) -> socket.socket:
    """At a free port of the loopback: these nodes have no namespaces of their own."""
    return listen(None, 0, IPv4Address("127.0.0.1"))


@dataclass
class Machine:
    """Nodes in memory, by name."""

    client: FakeClient
    links: dict[str, FakeLinks] = field(default_factory=dict)
    nft: dict[str, FakeNft] = field(default_factory=dict)
    losses: dict[str, Losses] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    replaced: set[str] = field(default_factory=set)

    def locate(self, name: str) -> Handles | None:
        if name == "elsewhere":
            return None
        self.links[name] = links = FakeLinks(Path(name))
        links.ensure_veth("eth0", Peer(f"n-{name}", Path("switch")), mtu=1500)
        self.nft[name] = nft = FakeNft()
        self.losses[name] = losses = Losses()
        self.replaced.discard(name)
        return Handles(
            doors=replace(fake_doors(nft), links=links),
            conntrack=NoFlows(),
            losses=losses,
            echo=reached,
            listen=listen_anywhere,
            ensure_sysctls=lambda: None,
            is_current=lambda: name not in self.replaced,
            close=partial(self._close, name),
        )

    def _close(self, name: str) -> None:
        self.losses[name].close()
        self.closed.append(name)

    async def until(self, what: str, check: Callable[[], object]) -> None:
        async def ask() -> bool:
            return bool(check())

        await wait_until_async(ask, 3, what)

    def peers(self, name: str) -> set[IPv4Network]:
        """The pod CIDRs that the node has routes to."""
        links = self.links.get(name)
        is_made = links and "flannel.1" in {link.name for link in links.links()}
        return set(links.routes("flannel.1")) if links and is_made else set()


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    client = FakeClient()
    await client.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "testbed", "namespace": "kube-system"},
            "data": {"spec.json": json.dumps(SPEC.to_json())},
        }
    )
    machine = Machine(client)
    task = asyncio.create_task(NodeDaemons(client, machine.locate).run())
    yield machine
    task.cancel()
    await asyncio.wait([task])


def node(name: str, at: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"testbed/role": "worker"},
            "annotations": {
                "testbed/underlay-address": f"198.18.0.{at}",
                "testbed/vtep-mac": f"02:00:00:00:00:{at:02x}",
            },
        },
        "spec": {"podCIDR": f"10.244.{at}.0/24"},
    }


async def test_nodes_here_are_served_and_all_nodes_are_peers(machine: Machine) -> None:
    for at, name in enumerate(["a", "b", "elsewhere"], 1):
        await machine.client.create(node(name, at))
    await machine.until(
        "routes to both peers",
        lambda: machine.peers("a") == {IPv4Network("10.244.2.0/24"), IPv4Network("10.244.3.0/24")},
    )
    assert set(machine.links) == {"a", "b"}


async def test_a_node_that_is_deleted_is_let_go_and_no_peer_any_more(machine: Machine) -> None:
    for at, name in enumerate("ab", 1):
        await machine.client.create(node(name, at))
    await machine.until("routes", lambda: machine.peers("a") and machine.peers("b"))
    await machine.client.delete(NODE, "b")
    await machine.until("the end of node b", lambda: machine.closed == ["b"])
    await machine.until("the end of its routes", lambda: machine.peers("a") == set())

    async def is_forgotten() -> bool:
        leases = await machine.client.list(LEASE)
        return "node-daemon-b" not in {lease["metadata"]["name"] for lease in leases.items}

    await wait_until_async(is_forgotten, 3, "the end of its lease")


async def test_a_node_with_a_new_namespace_is_served_there(machine: Machine) -> None:
    await machine.client.create(node("a", 1))
    await machine.until("the first namespace", lambda: "a" in machine.links)
    first = machine.links["a"]
    machine.replaced.add("a")
    await machine.until("the second namespace", lambda: machine.links["a"] is not first)
    assert machine.closed == ["a"]


async def test_what_the_kernel_lost_is_put_back(machine: Machine) -> None:
    for at, name in enumerate("ab", 1):
        await machine.client.create(node(name, at))
    await machine.until("routes", lambda: machine.peers("a"))
    machine.links["a"].delete_link("flannel.1")
    machine.losses["a"].lose()
    await machine.until("routes again", lambda: machine.peers("a"))


async def test_rules_that_a_stranger_changed_are_loaded_again(machine: Machine) -> None:
    def loads(chain: str) -> int:
        return sum(f"chain {chain}" in script for script in machine.nft["a"].loaded) if "a" in machine.nft else 0

    await machine.client.create(node("a", 1))
    await machine.until("rules", lambda: loads("nat-prerouting"))
    assert loads("postrouting") == 1
    machine.nft["a"].edit()
    await machine.until("the same rules again", lambda: loads("nat-prerouting") == 2)
    assert loads("postrouting") == 2


async def test_a_proof_is_written_into_the_node(machine: Machine) -> None:
    for at, name in enumerate("ab", 1):
        await machine.client.create(node(name, at))

    async def check() -> bool:
        found = condition(await machine.client.get(NODE, "a"), "NetworkUnavailable")
        return found.get("status") == "False" and found["message"].endswith("arrive whole at: b")

    await wait_until_async(check, 3, "the proof")


async def test_a_proof_that_could_not_be_written_is_written_later(machine: Machine) -> None:
    failures = iter([True, True])

    def intercept(verb: str, kind: Kind, _: Key) -> None:
        if kind == NODE and verb == "update" and next(failures, False):
            raise ServiceUnavailable("the API server is restarting")

    machine.client.intercept = intercept
    await machine.client.create(node("a", 1))

    async def check() -> bool:
        return condition(await machine.client.get(NODE, "a"), "NetworkUnavailable").get("status") == "False"

    await wait_until_async(check, 3, "the proof")
