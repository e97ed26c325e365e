"""B. Traffic policies: SVC-18 … SVC-23."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network

from testbed.api.kinds import NODE
from testbed.api.objects import Object, spec
from testbed.waiting import wait_until_async
from tests.conformance import manifests
from tests.conformance.bed import PROGRAMMED_S, Bed, Running
from tests.conformance.manifests import HTTP, Port, node_port
from tests.conformance.reaching import Client, Door
from tests.e2e.asking import Answer

WEB = {"app": "web"}
HOST_PORTS = 18223, 18224
"""Of hostNetwork servers: rows that run at the same time must not want the same."""
LOCAL = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
LINGERS_S = 15


async def local_policy_shows_the_real_client(bed: Bed) -> None:
    """SVC-18"""
    first, second, *_ = await bed.nodes(at_least=2)
    service, balanced = await bed.balance(manifests.service("web", WEB, Port(80, HTTP), **LOCAL))
    outside, _ = await bed.run(
        manifests.idle("outside", await bed.outside(), host_network=True), manifests.server("one", first, WEB)
    )
    client = Client(bed, outside, times=10)
    for door in (Door(await bed.address_of(first), node_port(service)), Door(balanced, 80)):
        await client.reaches(door, "one")
        seen = await client.sees(door)
        assert seen == outside.ip, f"through {door} the server saw {seen}, not the client's own {outside.ip}"
    await client.meets(Door(await bed.address_of(second), node_port(service)), "TIMEOUT")


async def pods_are_not_bound_by_the_external_policy(bed: Bed) -> None:
    """SVC-19"""
    first, second, *_ = await bed.nodes(at_least=2)
    service, balanced = await bed.balance(manifests.service("web", WEB, Port(80, HTTP), **LOCAL))
    pod, _ = await bed.run(manifests.idle("pod", first), manifests.server("one", second, WEB))
    for door in (Door(pod.host_ip, node_port(service)), Door(balanced, 80)):
        await Client(bed, pod, times=10).reaches(door, "one")


async def nodes_are_not_bound_by_the_external_policy(bed: Bed) -> None:
    """SVC-20"""
    first, second, *_ = await bed.nodes(at_least=2)
    service, balanced = await bed.balance(manifests.service("web", WEB, Port(80, HTTP), **LOCAL))
    host, _ = await bed.run(manifests.idle("host", first, host_network=True), manifests.server("one", second, WEB))
    pods = IPv4Network(spec(await bed.client.get(NODE, first))["podCIDR"])
    client = Client(bed, host, times=10)
    for door in (Door(balanced, 80), Door(host.host_ip, node_port(service))):
        await client.reaches(door, "one")
        seen = IPv4Address(await client.sees(door))
        # Of a masquerade it is the address of the device that the packet left by, an overlay's perhaps.
        assert str(seen) == host.host_ip or seen in pods, f"through {door} the server saw {seen}, none of the node's"


async def health_checks_tell_where_endpoints_are(bed: Bed) -> None:
    """SVC-21"""
    first, second, *_ = await bed.nodes(at_least=2)
    service, _ = await bed.balance(manifests.service("web", WEB, Port(80, HTTP), **LOCAL))
    port = int(spec(service)["healthCheckNodePort"])
    client, *servers = await bed.run(
        manifests.idle("client", second),
        manifests.server("one", first, WEB, lingers_s=LINGERS_S),
        manifests.server("two", first, WEB, lingers_s=LINGERS_S),
    )
    here, there = await bed.address_of(first), await bed.address_of(second)
    healthy = await _health(bed, client, (here, port), 200, 2)
    assert healthy["service"] == {"namespace": bed.namespace, "name": "web"}, healthy
    await _health(bed, client, (there, port), 503, 0)
    for server in servers:
        await bed.terminate(server.name)
    await _health(bed, client, (here, port), 503, 0)
    await bed.end(client, *servers)


async def internal_policy_local_stays_on_the_node(bed: Bed) -> None:
    """SVC-22"""
    first, second, third, *_ = await bed.nodes(at_least=3)
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP), internalTrafficPolicy="Local"))
    *clients, _, _ = await bed.run(
        *(pod for node in (first, second, third) for pod in _pod_and_host_on(node)),
        manifests.server("one", first, WEB),
        manifests.server("two", second, WEB),
    )
    await _expect_local_only(bed, address, clients, {first: "one", second: "two"})


async def internal_policy_local_finds_host_network_endpoints(bed: Bed) -> None:
    """SVC-23"""
    first, second, third, *_ = await bed.nodes(at_least=3)
    port = Port(80, HOST_PORTS[0])
    address = await bed.serve(manifests.service("web", WEB, port, internalTrafficPolicy="Local"))
    *clients, one, two = await bed.run(
        *(pod for node in (first, second, third) for pod in _pod_and_host_on(node)),
        manifests.server("one", first, WEB, host_network=True, ports=HOST_PORTS),
        manifests.server("two", second, WEB, host_network=True, ports=HOST_PORTS),
    )
    # What a hostNetwork pod calls itself is its node's name, as the runtime has it.
    called = {pod.node: await _own_name(bed, clients[0], pod) for pod in (one, two)}
    await _expect_local_only(bed, address, clients, called)


async def _expect_local_only(bed: Bed, address: str, clients: list[Running], wanted: dict[str, str]) -> None:
    """Each client comes to the one endpoint of its node; silence where there is none."""
    door = Door(address, 80)
    for client in clients:
        if name := wanted.get(client.node):
            await Client(bed, client, times=20).reaches(door, name)
        else:
            await Client(bed, client).meets(door, "TIMEOUT")


async def _own_name(bed: Bed, client: Running, server: Running) -> str:
    answer = await bed.ask(client, "http", host=server.ip, port=HOST_PORTS[0], path="/hostname")
    return str(answer["body"])


async def _health(bed: Bed, client: Running, where: tuple[str, int], status: int, endpoints: int) -> Answer:
    """Wait for this answer at a healthCheckNodePort; its document."""
    last: list[Answer] = []

    async def check() -> Answer | None:
        answer = await bed.ask(client, "http", host=where[0], port=where[1], path="/")
        last[:] = [answer]
        if answer["outcome"] != "OK" or answer["status"] != status:
            return None
        document: Answer = json.loads(answer["body"])
        return document if document["localEndpoints"] == endpoints else None

    what = f"{status} with {endpoints} local endpoints at {where[0]}:{where[1]}"
    return await wait_until_async(check, PROGRAMMED_S, what, every_s=0.1)


def _pod_and_host_on(node: str) -> tuple[Object, Object]:
    return manifests.idle(f"pod-{node}", node), manifests.idle(f"host-{node}", node, host_network=True)
