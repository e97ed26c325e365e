"""B. Session affinity: SVC-07 … SVC-10."""

from __future__ import annotations

from tests.conformance import manifests
from tests.conformance.bed import Bed, Running
from tests.conformance.manifests import HTTP, Port, affinity, node_port
from tests.conformance.reaching import Client, Door

WEB = {"app": "web"}
BACKENDS = "one", "two", "three"
TIMEOUT_S = 2
TRIES = 15
"""That a client with three backends comes to the first again 15 times over happens once in 10^7 runs."""


async def a_client_keeps_its_backend(bed: Bed) -> None:
    """SVC-07"""
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP), **affinity()))
    for client in await _clients_and_backends(bed):
        await _keeps(bed, client, Door(address, 80))


async def a_client_keeps_its_backend_through_a_node_port(bed: Bed) -> None:
    """SVC-08"""
    service = await bed.create(manifests.service("web", WEB, Port(80, HTTP), type="NodePort", **affinity()))
    (outside,) = await bed.run(manifests.idle("outside", await bed.outside(), host_network=True))
    clients = await _clients_and_backends(bed)
    address = await bed.address_of((await bed.nodes())[0])
    for client in (*clients, outside):
        await _keeps(bed, client, Door(address, node_port(service)))


async def affinity_can_be_switched(bed: Bed) -> None:
    """SVC-09"""
    service = await bed.create(manifests.service("web", WEB, Port(80, HTTP), type="NodePort"))
    client, *_ = await _clients_and_backends(bed)
    address = await bed.address_of((await bed.nodes(at_least=2))[1])
    doors = Door(service["spec"]["clusterIP"], 80), Door(address, node_port(service))
    for _ in range(2):
        for door in doors:
            await Client(bed, client).reaches(door, *BACKENDS)
        await bed.change("web", **affinity())
        for door in doors:
            await Client(bed, client).reaches_one_of(door, BACKENDS)
        await bed.change("web", sessionAffinity="None", sessionAffinityConfig=None)
    for door in doors:
        await Client(bed, client).reaches(door, *BACKENDS)


async def affinity_ends_when_a_client_is_idle(bed: Bed) -> None:
    """SVC-10"""
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP), **affinity(TIMEOUT_S)))
    client, *_ = await _clients_and_backends(bed)
    door = Door(address, 80)
    await Client(bed, client).reaches_one_of(door, BACKENDS)
    # Longer than the timeout in all, but never idle for so long: each connection starts it anew.
    steady = await bed.ask(client, "survey", host=address, port=80, times=6, every_s=TIMEOUT_S / 3)
    assert len(steady["names"]) == 1, f"with a connection every {TIMEOUT_S / 3:.1f} s it changed its backend: {steady}"
    for _ in range(TRIES):
        first, _, again = await bed.ask_all(
            client,
            [
                ("http", {"host": address, "port": 80, "path": "/hostname"}),
                ("wait", {"seconds": TIMEOUT_S + 0.5}),
                ("http", {"host": address, "port": 80, "path": "/hostname"}),
            ],
        )
        if again["body"] != first["body"]:
            return
    raise AssertionError(f"idle for {TIMEOUT_S + 0.5} s, {TRIES} times over, it still came to {first['body']}")


async def _clients_and_backends(bed: Bed) -> tuple[Running, Running]:
    """A pod and a node's own process; three backends are Ready on two nodes, and in the kernel of the clients' node."""
    first, second, *_ = await bed.nodes(at_least=2)
    every = await bed.serve(manifests.service("every", WEB, Port(80, HTTP)))
    pod, host, *_ = await bed.run(
        manifests.idle("pod", first),
        manifests.idle("host", first, host_network=True),
        *(manifests.server(name, node, WEB) for name, node in zip(BACKENDS, (first, second, second), strict=True)),
    )
    await Client(bed, pod).reaches(Door(every, 80), *BACKENDS)
    return pod, host


async def _keeps(bed: Bed, client: Running, door: Door) -> None:
    """Asked twice, 60 times each, the client comes to one and the same backend."""
    backend = await Client(bed, client).reaches_one_of(door, BACKENDS)
    again = await Client(bed, client).reaches_one_of(door, BACKENDS)
    assert again == backend, f"{client.name} came to {backend}, and later to {again}"
