"""A. Pod network: NET-01 … NET-06, NET-08, NET-09."""

from __future__ import annotations

from itertools import permutations

from testbed.api import objects
from testbed.api.kinds import NODE, POD
from testbed.api.objects import status
from testbed.api.wellknown import UNDERLAY_ANNOTATION
from testbed.waiting import wait_until_async
from tests.conformance import manifests
from tests.conformance.bed import READY_S, Bed, Running
from tests.conformance.manifests import HTTP, UDP
from tests.e2e.asking import Answer

RAW = ("NET_ADMIN", "NET_RAW")
UNDERLAY = "eth0"
ICMP = 1
MEGABYTE = 1_000_000
DATAGRAM = 60_000


async def pods_of_one_node_answer_http(bed: Bed) -> None:
    """NET-01"""
    node = (await bed.nodes())[0]
    for client, peer in permutations(await bed.run(*(manifests.server(f"pod-{i}", node) for i in range(3))), 2):
        answer = await bed.ask(client, "http", host=peer.ip, port=HTTP, path="/hostname")
        assert answer.get("body") == peer.name, f"{client.name} asked {peer.name}: {answer}"


async def pods_of_one_node_answer_udp(bed: Bed) -> None:
    """NET-02"""
    node = (await bed.nodes())[0]
    for client, peer in permutations(await bed.run(*(manifests.server(f"pod-{i}", node) for i in range(3))), 2):
        answer = await bed.ask(client, "udp", host=peer.ip, port=UDP, message="hostname")
        assert answer.get("body") == peer.name, f"{client.name} asked {peer.name}: {answer}"


async def nodes_reach_every_pod(bed: Bed) -> None:
    """NET-03"""
    nodes = await bed.nodes()
    hosts = [manifests.idle(f"host-{node}", node, host_network=True) for node in nodes]
    running = await bed.run(*hosts, *(manifests.server(f"pod-{node}", node) for node in nodes))
    clients, servers = running[: len(nodes)], running[len(nodes) :]
    questions = [
        *(("http", {"host": server.ip, "port": HTTP, "path": "/hostname"}) for server in servers),
        *(("udp", {"host": server.ip, "port": UDP, "message": "hostname"}) for server in servers),
    ]
    for client in clients:
        answers = await bed.ask_all(client, questions)
        assert [a.get("body") for a in answers] == [s.name for s in servers] * 2, f"from {client.node}: {answers}"


async def sources_are_kept_between_nodes(bed: Bed) -> None:
    """NET-04"""
    first, second, *_ = await bed.nodes(at_least=2)
    for client, peer in permutations(await bed.run(manifests.server("one", first), manifests.server("two", second)), 2):
        over_tcp, over_udp = await bed.ask_all(
            client,
            [
                ("http", {"host": peer.ip, "port": HTTP, "path": "/clientip"}),
                ("udp", {"host": peer.ip, "port": UDP, "message": "clientip"}),
            ],
        )
        expect_source(over_tcp, client.ip)
        expect_source(over_udp, client.ip)


async def what_leaves_the_cluster_bears_the_nodes_address(bed: Bed) -> None:
    """NET-05"""
    outside, node = await bed.outside(), (await bed.nodes())[0]
    # Other ports than netexec's own: the topology may have one running there, in the same namespace.
    command = ["netexec", "--http-port", "18080", "--udp-port", "18081"]
    server = manifests.pod("outside", [manifests.container(command=command)], node=outside, host_network=True)
    client, target = await bed.run(manifests.idle("client", node), server)
    over_tcp = await bed.ask_until(client, "OK", "http", host=target.ip, port=18080, path="/clientip")
    over_udp = await bed.ask(client, "udp", host=target.ip, port=18081, message="clientip")
    expect_source(over_tcp, client.host_ip)
    expect_source(over_udp, client.host_ip)


async def containers_share_a_pods_network(bed: Bed) -> None:
    """NET-06"""
    exit_when_asked = "import socket; s = socket.create_server(('', 9000)); s.accept(); s.accept()"
    mortal = manifests.container("mortal", command=["python3", "-c", exit_when_asked])
    (pod,) = await bed.run(manifests.pod("shared", [manifests.container("server"), mortal]))
    across = [("http", {"host": "127.0.0.1", "port": HTTP, "path": "/hostname"})]
    (answer,) = await bed.ask_all(pod, across, container="mortal")
    assert answer.get("body") == pod.name, f"across containers: {answer}"
    # Two connections end it.
    ends = [("tcp", {"host": "127.0.0.1", "port": 9000})] * 2
    assert [a["outcome"] for a in await bed.ask_all(pod, ends, container="server")] == ["OK", "OK"]
    await _restarted(bed, pod, "mortal")
    again = await bed.ready(pod.name)
    assert again.ip == pod.ip, f"the pod was {pod.ip} and is {again.ip} after a container's restart"
    (answer,) = await bed.ask_all(again, across, container="mortal")
    assert answer.get("body") == pod.name, f"across containers after the restart: {answer}"


async def large_messages_arrive_whole(bed: Bed) -> None:
    """NET-08"""
    first, second, *_ = await bed.nodes(at_least=2)
    for client, peer in permutations(await bed.run(manifests.server("one", first), manifests.server("two", second)), 2):
        body, datagram = await bed.ask_all(
            client,
            [
                ("post", {"host": peer.ip, "port": HTTP, "size": MEGABYTE}),
                ("udp", {"host": peer.ip, "port": UDP, "message": "echo ", "filler": DATAGRAM - 5}),
            ],
        )
        assert (body.get("size"), body.get("intact")) == (MEGABYTE, True), f"1 MB of HTTP: {body}"
        assert (datagram.get("size"), datagram.get("intact")) == (DATAGRAM - 5, True), f"60 kB of UDP: {datagram}"


async def full_size_packets_pass_whole(bed: Bed) -> None:
    """NET-09"""
    first, second, *_ = await bed.nodes(at_least=2)
    client, peer, tap = await bed.run(
        manifests.pod("client", [_raw_container()], node=first),
        manifests.server("peer", second),
        manifests.pod("tap", [_raw_container()], node=first, host_network=True),
    )
    mtu = (await bed.ask(client, "mtu", device=UNDERLAY))["mtu"]
    underlay = (await bed.ask(tap, "mtu", device=UNDERLAY))["mtu"]
    outer = await _outer_address(bed, peer)
    async with bed.meanwhile(tap, "capture", device=UNDERLAY, seconds=1.5) as captured:
        passes, fails = await bed.ask_all(
            client, [("ping", {"host": peer.ip, "size": mtu}), ("ping", {"host": peer.ip, "size": mtu + 1})]
        )
        frames = (await captured)["frames"]
    assert passes["outcome"] == "OK", f"a don't-fragment ping of {mtu - 28} bytes (MTU {mtu}): {passes}"
    assert fails["outcome"] != "OK", f"a ping of {mtu - 27} bytes passed though the MTU is {mtu}"
    pings = [f for f in frames if _is_ping(f, peer.ip) or _is_ping(f["inner"], peer.ip)]
    assert [ping["length"] for ping in pings] == [underlay], f"on the underlay (MTU {underlay}): {pings}"
    fragments = [f for f in frames if f["is_fragment"] and f["destination"] in (peer.ip, outer)]
    assert not fragments, f"fragmented on the underlay: {fragments}"


def expect_source(answer: Answer, address: str) -> None:
    """The server saw `address` as the client's."""
    seen = str(answer.get("body", "")).rpartition(":")[0]
    assert seen == address, f"the server saw {seen or 'nothing'} and should have seen {address}: {answer}"


async def _restarted(bed: Bed, pod: Running, container: str) -> None:
    async def check() -> bool:
        found = await bed.client.get(POD, pod.name, bed.namespace)
        statuses = status(found).get("containerStatuses") or []
        return any(s["name"] == container and s["restartCount"] >= 1 and s.get("ready") for s in statuses)

    await wait_until_async(check, READY_S, f"the restart of {container} in {pod.name}", every_s=0.05)


def _raw_container() -> dict[str, object]:
    return manifests.container(command=manifests.IDLE, securityContext={"capabilities": {"add": list(RAW)}})


async def _outer_address(bed: Bed, peer: Running) -> str:
    """Where packets to this pod go on the underlay when they are encapsulated."""
    node = await bed.client.get(NODE, peer.node)
    return objects.annotations(node).get(UNDERLAY_ANNOTATION) or peer.host_ip


def _is_ping(frame: Answer | None, to: str) -> bool:
    return frame is not None and (frame["protocol"], frame["destination"]) == (ICMP, to)
