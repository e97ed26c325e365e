"""C. Connection tracking: CT-01 … CT-07."""

from __future__ import annotations

from pathlib import Path

from testbed.api.kinds import SERVICE
from testbed.errors import TimedOut
from testbed.waiting import wait_until_async
from tests.conformance import manifests
from tests.conformance.bed import PROGRAMMED_S, Bed, Running
from tests.conformance.manifests import HTTP, UDP, Port, node_port
from tests.conformance.network import RAW
from tests.conformance.reaching import Client, Door
from tests.e2e.asking import Answer

WEB = {"app": "web"}
UDP_PORT = Port(80, UDP, "UDP")
SOURCE_PORT = 12345
"""Always the same: to connection tracking the client's datagrams are one flow."""
INJECT = Path(__file__).with_name("inject.py").read_text()
INJECTED = 9000
PAIRS = 10_000
MOST_LOST = 0.001


async def a_flow_follows_its_backends_successor(bed: Bed) -> None:
    """CT-01"""
    address = await bed.serve(manifests.service("web", WEB, UDP_PORT))
    await _replace_the_backend(bed, (address, 80))


async def a_flow_through_a_node_port_follows_too(bed: Bed) -> None:
    """CT-02"""
    service = await bed.create(manifests.service("web", WEB, UDP_PORT, type="NodePort"))
    elsewhere = await bed.address_of((await bed.nodes(at_least=2))[1])
    await _replace_the_backend(bed, (elsewhere, node_port(service)))


async def a_flow_older_than_all_endpoints_gets_through(bed: Bed) -> None:
    """CT-03"""
    first, second, *_ = await bed.nodes(at_least=2)
    service = await bed.create(manifests.service("web", WEB, UDP_PORT, type="NodePort"))
    elsewhere = await bed.address_of(second)
    clients = await bed.run(manifests.idle("one", first), manifests.idle("two", first))
    doors = (service["spec"]["clusterIP"], 80), (elsewhere, node_port(service))
    asked = [
        {"host": host, "port": port, "message": "hostname", "source_port": SOURCE_PORT, "timeout_s": 30.0}
        for host, port in doors
    ]
    async with (
        bed.asking(clients[0], "send_until_answered", **asked[0]) as through_cluster_ip,
        bed.asking(clients[1], "send_until_answered", **asked[1]) as through_node_port,
    ):
        await bed.run(manifests.server("late", second, WEB))
        for answer in (await through_cluster_ip, await through_node_port):
            assert answer.get("body") == "late", f"a client that sent before there was an endpoint: {answer}"


async def segments_out_of_window_end_nothing(bed: Bed) -> None:
    """CT-04 (kubernetes/kubernetes#74839)"""
    first, second, *_ = await bed.nodes(at_least=2)
    address = await bed.serve(manifests.service("web", WEB, Port(INJECTED)))
    injects = manifests.container(
        command=["python3", "-u", "-c", INJECT, str(INJECTED)],
        securityContext={"capabilities": {"add": ["NET_RAW"]}},
        readinessProbe={"tcpSocket": {"port": INJECTED + 1}, "periodSeconds": 1},
    )
    client, *_ = await bed.run(
        manifests.idle("client", first), manifests.pod("server", [injects], node=second, labels=WEB)
    )
    # The service's rules have arrived when the first connection is accepted; each is a whole experiment.
    answer = await bed.ask_until(client, "OK", "banner", host=address, port=INJECTED)
    assert answer["body"] == "injected\nstill here\n", f"after a segment out of window the client read {answer}"


async def a_flow_keeps_its_backend_when_others_go(bed: Bed) -> None:
    """CT-05"""
    first, second, *_ = await bed.nodes(at_least=2)
    address = await bed.serve(manifests.service("web", WEB, UDP_PORT))
    client, *backends = await bed.run(
        manifests.idle("client", first),
        *(manifests.server(name, second, WEB) for name in ("one", "two", "three")),
    )
    await Client(bed, client).reaches(Door(address, 80, "UDP"), "one", "two", "three")
    kept = await _answering(bed, client, (address, 80))
    gone = next(backend for backend in backends if backend.name != kept)
    await bed.delete_pod(gone.name)
    await Client(bed, client).reaches(Door(address, 80, "UDP"), *{b.name for b in backends} - {gone.name})
    for _ in range(5):
        now = await _answering(bed, client, (address, 80))
        assert now == kept, f"the flow went to {kept}; when {gone.name} had gone, to {now}"


async def a_deleted_services_connections_go_on(bed: Bed) -> None:
    """CT-06"""
    first, second, *_ = await bed.nodes(at_least=2)
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP)))
    client, _ = await bed.run(manifests.idle("client", first), manifests.server("one", second, WEB))
    await Client(bed, client, times=3).reaches(Door(address, 80), "one")
    async with bed.asking(client, "converse", host=address, port=80, seconds=3.0) as conversation:
        await bed.client.delete(SERVICE, "web", bed.namespace)
        await Client(bed, client).is_turned_away(Door(address, 80))
        told = await conversation
    assert set(told.get("names", ())) == {"one"}, f"the connection that was open when its Service went: {told}"


async def parallel_queries_get_through(bed: Bed) -> str:
    """CT-07"""
    first, second, *_ = await bed.nodes(at_least=2)
    address = await bed.serve(manifests.service("web", WEB, UDP_PORT))
    client, host, *_ = await bed.run(
        manifests.idle("client", first),
        manifests.idle("host", first, host_network=True, capabilities=RAW),
        *(manifests.server(name, second, WEB) for name in ("one", "two")),
    )
    await Client(bed, client).reaches(Door(address, 80, "UDP"), "one", "two")
    before = await bed.ask_node(host, "conntrack_statistics")
    told = await bed.ask(client, "twins", host=address, port=80, pairs=PAIRS)
    after = await bed.ask_node(host, "conntrack_statistics")
    assert told["outcome"] == "OK", told
    counted = {name: after[name] - before[name] for name in ("insert_failed", "clash_resolve", "drop")}
    report = f"{told['lost']} of {told['sent']} lost; " + ", ".join(f"{name} {n}" for name, n in counted.items())
    assert told["lost"] < MOST_LOST * told["sent"], report
    return report


async def _replace_the_backend(bed: Bed, where: tuple[str, int]) -> None:
    """A client keeps sending from one port; it is answered by the first backend, and then by its successor."""
    first, second, *_ = await bed.nodes(at_least=2)
    client, _ = await bed.run(manifests.idle("client", first), manifests.server("one", second, WEB))
    await _answers(bed, client, where, "one")
    await bed.delete_pod("one")
    await bed.run(manifests.server("two", second, WEB))
    await _answers(bed, client, where, "two")


async def _answers(bed: Bed, client: Running, where: tuple[str, int], wanted: str) -> None:
    last: list[Answer] = []

    async def check() -> bool:
        last[:] = [await _ask(bed, client, where)]
        return bool(last[0].get("body") == wanted)

    try:
        await wait_until_async(check, PROGRAMMED_S, "", every_s=0.1)
    except TimedOut:
        raise AssertionError(f"the flow should be answered by {wanted}, and for {PROGRAMMED_S:g} s: {last}") from None


async def _answering(bed: Bed, client: Running, where: tuple[str, int]) -> str:
    answer = await _ask(bed, client, where)
    assert answer["outcome"] == "OK", f"on the flow: {answer}"
    return str(answer["body"])


async def _ask(bed: Bed, client: Running, where: tuple[str, int]) -> Answer:
    host, port = where
    return await bed.ask(
        client, "udp", host=host, port=port, message="hostname", source_port=SOURCE_PORT, timeout_s=0.5
    )
