"""healthCheckNodePort."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.errors import KernelError
from testbed.kernel.listening import ANY, listen
from testbed.node.healthchecks import HealthChecks, addresses
from testbed.proxy.virtualport import HealthCheck, Here
from tests.unit.node.asking import ask
from tests.unit.node.ports import WEB

LOOPBACK = IPv4Address("127.0.0.1")


@dataclass
class Node:
    """Listens at free ports of the loopback, in place of those that are asked for."""

    ports: dict[int, int] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    is_healthy: bool = True

    def listen(self, port: int, address: IPv4Address = ANY) -> socket.socket:
        if port in self.taken:
            raise KernelError(f"listen at {address}:{port}: Address already in use")
        listener = listen(None, 0, LOOPBACK)
        self.ports[port] = listener.getsockname()[1]
        return listener


@asynccontextmanager
async def checks(node: Node) -> AsyncIterator[HealthChecks]:
    found = HealthChecks(node.listen, lambda: node.is_healthy)
    try:
        yield found
    finally:
        await found.close()


@pytest.mark.parametrize(
    ("count", "is_healthy", "status"), [(2, True, 200), (0, True, 503), (2, False, 503), (0, False, 503)]
)
async def test_well_is_who_has_endpoints_and_a_proxy_that_is_well(count: int, is_healthy: bool, status: int) -> None:
    node = Node(is_healthy=is_healthy)
    async with checks(node) as found:
        await found.sync({WEB: HealthCheck(32000, count)})
        reply = await ask(node.ports[32000], "/")
    assert reply.status == status
    assert reply.document == {
        "service": {"namespace": "default", "name": "web"},
        "localEndpoints": count,
        "serviceProxyHealthy": is_healthy,
    }
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["x-load-balancing-endpoint-weight"] == str(count)


async def test_a_change_of_endpoints_is_told_by_the_same_listener() -> None:
    node = Node()
    async with checks(node) as found:
        await found.sync({WEB: HealthCheck(32000, 0)})
        port = node.ports[32000]
        await found.sync({WEB: HealthCheck(32000, 1)})
        assert (await ask(port, "/any/path")).document["localEndpoints"] == 1


async def test_the_listener_goes_with_the_service_and_moves_with_its_port() -> None:
    node = Node()
    async with checks(node) as found:
        await found.sync({WEB: HealthCheck(32000, 1)})
        await found.sync({WEB: HealthCheck(32001, 1)})
        assert (await ask(node.ports[32001], "/")).status == 200
        with pytest.raises(ConnectionRefusedError):
            await ask(node.ports[32000], "/")
        await found.sync({})
        with pytest.raises(ConnectionRefusedError):
            await ask(node.ports[32001], "/")


async def test_a_port_that_is_taken_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    node = Node(taken={32000})
    async with checks(node) as found:
        await found.sync({WEB: HealthCheck(32000, 1)})
        assert "default/web: listen at 0.0.0.0:32000: Address already in use" in caplog.text
        node.taken.clear()
        await found.sync({WEB: HealthCheck(32000, 1)})
        assert (await ask(node.ports[32000], "/")).status == 200


def here(*networks: str) -> Here:
    return Here(
        node="a",
        address=IPv4Address("198.18.0.10"),
        pod_cidr=IPv4Network("10.244.0.0/24"),
        cluster_cidr=IPv4Network("10.244.0.0/16"),
        service_cidr=IPv4Network("10.96.0.0/16"),
        node_port_addresses=tuple(IPv4Network(network) for network in networks),
    )


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        ((), ["0.0.0.0"]),
        (("198.18.0.0/16",), ["198.18.0.10"]),
        (("0.0.0.0/0",), ["198.18.0.10", "10.244.0.1"]),
        (("192.0.2.0/24",), []),
    ],
)
def test_health_checks_are_where_node_ports_are(networks: tuple[str, ...], expected: list[str]) -> None:
    assert [str(address) for address in addresses(here(*networks))] == expected
