"""What must survive a hard hand: NET-10, NET-11, SVC-37, SVC-38. These rows break the cluster and heal it again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import yaml

from testbed.api import objects
from testbed.api.kinds import NODE
from testbed.api.objects import Object, spec
from testbed.api.wellknown import UNDERLAY_ANNOTATION
from testbed.errors import ApiError
from testbed.waiting import wait_until_async
from tests.conformance import manifests
from tests.conformance.bed import PROGRAMMED_S, Bed, Running
from tests.conformance.manifests import HTTP, Port
from tests.conformance.network import RAW, UNDERLAY
from tests.e2e.asking import Answer
from tests.e2e.edit import edit
from tests.e2e.parts import first_parts, parts

OVERLAY = "flannel.1"
HEALED_S = 30.0
GONE_S = 1.0
WEB = {"app": "web"}


async def a_removed_node_is_forgotten(bed: Bed) -> None:
    """NET-10"""
    cluster = bed.subject.own()
    kept, *_, leaving = await bed.nodes(at_least=3)
    before = yaml.safe_load(cluster.file.read_text())
    node = await bed.client.get(NODE, leaving)
    entries = _entries(node, bed.subject.mode)
    client, host, doomed = await bed.run(
        manifests.idle("client", kept),
        manifests.idle("host", kept, host_network=True, capabilities=RAW),
        manifests.server("doomed", leaving),
    )
    await bed.ask_until(client, "OK", "http", host=doomed.ip, port=HTTP, path="/")
    removed = asyncio.create_task(_moment_of_deletion(bed, leaving))
    try:
        async with bed.meanwhile(host, "wait_gone", **entries, timeout_s=HEALED_S) as gone:
            cluster.set(nodes=[node for node in before["spec"]["nodes"] if node["name"] != leaving])
            (await asyncio.to_thread(cluster.up)).expect()
            _expect_gone_soon(await gone, await removed)
        async with bed.meanwhile(host, "capture", device=UNDERLAY, seconds=1.5, destination=doomed.ip) as strays:
            answer = await bed.ask(client, "tcp", host=doomed.ip, port=HTTP, timeout_s=1.0)
            assert answer["outcome"] != "OK", "a pod of the removed node still answers"
            assert not (frames := (await strays)["frames"]), f"misrouted: packets for the removed node left as {frames}"
    finally:
        removed.cancel()
        cluster.set(nodes=before["spec"]["nodes"])
        (await asyncio.to_thread(cluster.up)).expect()


async def a_deleted_overlay_device_comes_back(bed: Bed) -> None:
    """NET-11"""
    bed.subject.own()
    first, *others = await bed.nodes(at_least=2)
    client, host, *peers = await bed.run(
        manifests.idle("client", first),
        manifests.idle("host", first, host_network=True, capabilities=RAW),
        *(manifests.server(f"pod-{node}", node) for node in others),
    )
    before = await bed.ask_node(host, "tables")
    await bed.ask_node(host, "delete_link", name=OVERLAY)

    async def check() -> bool:
        questions = [("http", {"host": peer.ip, "port": HTTP, "path": "/hostname", "timeout_s": 0.3}) for peer in peers]
        return all(answer["outcome"] == "OK" for answer in await bed.ask_all(client, questions))

    await wait_until_async(check, HEALED_S, f"{OVERLAY} back on {first} with all its peers", every_s=0.1)
    after = await bed.ask_node(host, "tables")
    lost = {table: sorted(set(before[table]) - set(after[table])) for table in ("links", "routes", "fdb")}
    assert not any(lost.values()), f"after the device came back, these entries are missing: {lost}"


async def services_outlive_their_proxy(bed: Bed) -> None:
    """SVC-37"""
    cluster = bed.subject.own()
    first, second, *_ = await bed.nodes(at_least=2)
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP)))
    client, host, _ = await bed.run(
        manifests.idle("client", first),
        manifests.idle("host", first, host_network=True, capabilities=RAW),
        manifests.server("one", second, WEB),
    )
    await bed.ask_until(client, "OK", "http", host=address, port=80, path="/")
    async with _unbroken_stream(bed, first, second):
        for daemon in parts(cluster.name, cluster.runtime, "node-daemon"):
            daemon.kill()
        answer = await bed.ask(client, "http", host=address, port=80, path="/")
        assert answer["outcome"] == "OK", f"with the node daemon dead, the Service answers {answer}"
        await asyncio.to_thread(first_parts, cluster.name, cluster.runtime, "node-daemon", HEALED_S)
        await _expect_changes_programmed(bed, client)
    await bed.ask_node(host, "flush_ruleset")
    await _expect_healed(bed, client, address, "a foreign flush of the ruleset")
    edited = await asyncio.to_thread(edit, cluster, first, address)
    await _expect_healed(bed, client, address, f"a foreign hand's `{edited}`")


async def services_outlive_the_api_server(bed: Bed) -> None:
    """SVC-38"""
    cluster = bed.subject.own()
    first, second, *_ = await bed.nodes(at_least=2)
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP)))
    client, _ = await bed.run(manifests.idle("client", first), manifests.server("one", second, WEB))
    await bed.ask_until(client, "OK", "http", host=address, port=80, path="/")
    async with _unbroken_stream(bed, first, second):
        for part in parts(cluster.name, cluster.runtime, "control-plane"):
            part.kill()
        await _answering_again(bed)
        answer = await bed.ask(client, "http", host=address, port=80, path="/")
        assert answer["outcome"] == "OK", f"after the API server's restart the old Service answers {answer}"
        await _expect_changes_programmed(bed, client)


def _entries(node: Object, mode: str) -> dict[str, str]:
    """What the other nodes keep for this one, by table; host-gw has a route alone, and the empty string is in none."""
    cidr = spec(node)["podCIDR"]
    if not mode.startswith("vxlan"):
        return {"route": cidr, "neighbour": "", "fdb": ""}
    underlay = objects.annotations(node)[UNDERLAY_ANNOTATION]
    return {"route": cidr, "neighbour": cidr.partition("/")[0], "fdb": underlay.partition("/")[0]}


async def _moment_of_deletion(bed: Bed, node: str) -> float:
    """When, on the monotonic clock, the API told that the Node is no more."""
    since = (await bed.client.list(NODE)).resource_version
    async for event in bed.client.watch(NODE, since=since, field_selector=f"metadata.name={node}"):
        if event.type == "DELETED":
            return time.monotonic()
    raise AssertionError(f"the watch ended before Node {node} was deleted")


def _expect_gone_soon(gone: Answer, removed: float) -> None:
    for table, moment in gone.items():
        assert moment is not None, f"the removed node is still in the {table} of the others"
        assert moment - removed <= GONE_S, f"it left the {table} {moment - removed:.2f} s after its Node object"


@asynccontextmanager
async def _unbroken_stream(bed: Bed, client_node: str, server_node: str) -> AsyncIterator[None]:
    """Through a ClusterIP, a connection opened before the body, busy during it, and still the same afterwards."""
    address = await bed.serve(manifests.service("stream", {"pod": "server"}, Port(7000)))
    await bed.run(manifests.stream("server", server_node, "serve", "7000"))
    (probe,) = await bed.run(manifests.idle("probe", client_node))
    await bed.ask_until(probe, "OK", "tcp", host=address, port=7000)
    (talker,) = await bed.run(manifests.stream("talker", client_node, "talk", address, "7000"))
    await _expect_progress(bed, talker)
    yield
    await _expect_progress(bed, talker)


async def _expect_progress(bed: Bed, talker: Running) -> None:
    """More lines come back than before; AssertionError with the talker's last words if it broke."""
    before = await bed.log_lines(talker.name)

    async def check() -> bool:
        lines = await bed.log_lines(talker.name)
        broken = [line for line in lines if line.startswith("BROKEN")]
        assert not broken, f"the open connection did not survive: {broken[0]}"
        return len(lines) > len(before) + 1

    await wait_until_async(check, PROGRAMMED_S, "answers on the open connection", every_s=0.1)


async def _expect_healed(bed: Bed, client: Running, address: str, what: str) -> None:
    async def check() -> bool:
        answer = await bed.ask(client, "http", host=address, port=80, path="/", timeout_s=0.3)
        return bool(answer["outcome"] == "OK")

    await wait_until_async(check, HEALED_S, f"new connections after {what}", every_s=0.1)


async def _expect_changes_programmed(bed: Bed, client: Running) -> None:
    """A Service made now works: whoever was restarted has picked up its work."""
    fresh = await bed.serve(manifests.service("fresh", WEB, Port(80, HTTP)))

    async def check() -> bool:
        answer = await bed.ask(client, "http", host=fresh, port=80, path="/", timeout_s=0.3)
        return bool(answer["outcome"] == "OK")

    await wait_until_async(check, HEALED_S, "a Service created after the restart", every_s=0.1)


async def _answering_again(bed: Bed) -> None:
    async def check() -> bool:
        try:
            return bool((await bed.client.list(NODE)).items)
        except ApiError:
            return False

    await wait_until_async(check, HEALED_S, "an answer of the restarted API server", every_s=0.05)
