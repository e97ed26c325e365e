"""What a node daemon answers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from testbed.api.objects import Key
from testbed.api.wellknown import HEALTH_PORT, METRICS_PORT
from testbed.kernel.listening import ANY, listen
from testbed.node.changes import Changes
from testbed.node.pages import Explained, Pages
from testbed.node.seen import Seen
from testbed.proxy.virtualport import HealthCheck
from testbed.waiting import wait_until_async
from tests.unit.node.asking import Reply, ask
from tests.unit.node.ports import WEB, virtual_port


@dataclass
class Rules:
    """A kernel that holds one Service, and not quite what it should."""

    async def explain(self, which: Key) -> Sequence[Explained]:
        port = virtual_port("10.244.0.2:8080", "10.244.1.2:8080", node_port=30080, affinity_s=10)
        return [Explained(port, ["map services: goto lb-2", "chain lb-2: dnat"])] if which == WEB else []

    async def differences(self) -> Sequence[str]:
        return ["- element services 10.96.0.20 . tcp . 80"]

    async def rules_held(self) -> Mapping[str, int]:
        return {"nat": 7, "filter": 2}

    def health_check(self, which: Key) -> HealthCheck | None:
        return HealthCheck(32000, 1) if which == WEB else None


@dataclass
class Node:
    """Listens at free ports of the loopback."""

    seen: Seen
    ports: dict[int, int] = field(default_factory=dict)

    def listen(self, port: int, address: IPv4Address = ANY) -> socket.socket:
        listener = listen(None, 0, IPv4Address("127.0.0.1"))
        self.ports[port] = listener.getsockname()[1]
        return listener

    async def ask(self, target: str, port: int = METRICS_PORT) -> Reply:
        return await ask(self.ports[port], target)


@asynccontextmanager
async def node(seen: Seen | None = None) -> AsyncIterator[Node]:
    one = Node(seen or Seen(Changes(), "nftables"))

    async def listens() -> bool:
        return HEALTH_PORT in one.ports

    serving = asyncio.create_task(Pages("a", one.seen, Rules()).serve(one.listen))
    await wait_until_async(listens, 2, "both listeners")
    yield one
    serving.cancel()
    await asyncio.wait([serving])


async def test_metrics_are_text_that_prometheus_reads() -> None:
    async with node() as a:
        reply = await a.ask("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert '\ntestbed_proxy_mode{mode="nftables"} 1\n' in reply.text
    assert '\nkubeproxy_sync_proxy_rules_iptables_total{ip_family="IPv4",table="nat"} 7\n' in reply.text


async def test_health_and_mode_are_as_kube_proxy_says_them() -> None:
    async with node() as a:
        assert (await a.ask("/healthz")).text == "ok"
        assert (await a.ask("/proxyMode")).text == "nftables"
        health = await a.ask("/healthz", HEALTH_PORT)
        alive = await a.ask("/livez", HEALTH_PORT)
        metrics = (await a.ask("/metrics")).text
    assert (health.status, health.document.keys()) == (200, {"lastUpdated", "currentTime", "nodeEligible"})
    assert alive.document.keys() == {"lastUpdated", "currentTime"}
    assert 'kubeproxy_proxy_healthz_total{code="200"} 1' in metrics


async def test_a_proxy_that_has_been_silent_for_too_long_is_ill() -> None:
    now_s = 1_000.0
    seen = Seen(Changes(), now_s=lambda: now_s)
    now_s += 61
    async with node(seen) as a:
        health = await a.ask("/healthz", HEALTH_PORT)
    assert (health.status, health.document["lastUpdated"]) == (503, "1970-01-01 00:00:00+00:00")


async def test_the_way_of_a_service_is_told_port_by_port() -> None:
    async with node() as a:
        reply = await a.ask("/proxy/service?namespace=default&name=web")
    assert {key: reply.document[key] for key in ("node", "mode", "healthCheck")} == {
        "node": "a",
        "mode": "nftables",
        "healthCheck": {"port": 32000, "local_endpoints": 1},
    }
    (port,) = reply.document["ports"]
    assert port["path"] == ["map services: goto lb-2", "chain lb-2: dnat"]
    assert (port["clusterIP"], port["port"], port["protocol"]) == ("10.96.0.20", 80, "TCP")
    assert port["internal"] == port["external"] == ["10.244.0.2:8080", "10.244.1.2:8080"]
    assert (port["nodePort"], port["sessionAffinitySeconds"], port["internalRefusal"]) == (30080, 10, "")


async def test_a_service_that_the_node_does_not_serve_is_not_found() -> None:
    async with node() as a:
        unknown, unsaid = await a.ask("/proxy/service?name=other"), await a.ask("/proxy/service")
    assert (unknown.status, unknown.document["message"]) == (404, "node a serves nothing for Service default/other")
    assert unsaid.status == 400


async def test_differences_are_told_line_by_line() -> None:
    async with node() as a:
        reply = await a.ask("/proxy/diff")
    assert reply.document == {
        "node": "a",
        "mode": "nftables",
        "differences": ["- element services 10.96.0.20 . tcp . 80"],
    }


async def test_other_paths_are_not_found() -> None:
    async with node() as a:
        assert (await a.ask("/proxy")).status == 404
