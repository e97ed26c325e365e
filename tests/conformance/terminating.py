"""B. Endpoints that come and go: SVC-15, SVC-24 … SVC-27."""

from __future__ import annotations

from testbed.api.kinds import POD
from testbed.api.objects import status
from testbed.waiting import wait_until_async
from tests.conformance import manifests
from tests.conformance.bed import READY_S, Bed
from tests.conformance.manifests import HTTP, Port, node_port
from tests.conformance.reaching import Client, Door

WEB = {"app": "web"}
LINGERS_S = 20
"""How long an endpoint serves while it terminates: longer than any row looks at it, and then it is told to exit."""


async def a_failed_pod_leaves_nobody_behind_the_service(bed: Bed) -> None:
    """SVC-15. What eviction leaves: a Pod that is still there, has phase Failed, and whose containers have ended."""
    first, second, *_ = await bed.nodes(at_least=2)
    service = await bed.create(manifests.service("web", WEB, Port(80, HTTP), type="NodePort"))
    mortal = manifests.server("mortal", second, WEB)
    mortal["spec"]["restartPolicy"] = "Never"
    pod, host, server = await bed.run(
        manifests.idle("pod", first), manifests.idle("host", first, host_network=True), mortal
    )
    doors = Door(service["spec"]["clusterIP"], 80), Door(pod.host_ip, node_port(service))
    for door in doors:
        await Client(bed, pod, times=1).reaches(door, "mortal")
    await bed.ask(pod, "http", host=server.ip, port=HTTP, path="/exit?code=1")

    async def check() -> bool:
        return bool(status(await bed.client.get(POD, "mortal", bed.namespace))["phase"] == "Failed")

    await wait_until_async(check, READY_S, "the pod's phase Failed", every_s=0.05)
    for client in (pod, host):
        for door in doors:
            await Client(bed, client).meets(door, "REFUSED")


async def the_last_ones_serve_while_they_terminate(bed: Bed) -> None:
    """SVC-24"""
    first, second, *_ = await bed.nodes(at_least=2)
    service = await bed.create(manifests.service("web", WEB, Port(80, HTTP), type="NodePort"))
    pod, *servers = await bed.run(
        manifests.idle("pod", first),
        manifests.server("one", first, WEB, lingers_s=LINGERS_S),
        manifests.server("two", second, WEB, lingers_s=LINGERS_S),
    )
    doors = Door(service["spec"]["clusterIP"], 80), Door(pod.host_ip, node_port(service))
    for door in doors:
        await Client(bed, pod).reaches(door, "one", "two")
    for server in servers:
        await bed.terminate(server.name)
    for door in doors:
        await Client(bed, pod).reaches(door, "one", "two")
    await bed.end(pod, *servers)
    for door in doors:
        await Client(bed, pod).meets(door, "REFUSED")


async def local_policy_uses_those_that_terminate(bed: Bed) -> None:
    """SVC-25"""
    first, second, *_ = await bed.nodes(at_least=2)
    policies = {"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}
    service = await bed.create(manifests.service("web", WEB, Port(80, HTTP), type="NodePort", **policies))
    outside, pod, here, _ = await bed.run(
        manifests.idle("outside", await bed.outside(), host_network=True),
        manifests.idle("pod", first),
        manifests.server("here", first, WEB, lingers_s=LINGERS_S),
        manifests.server("elsewhere", second, WEB),
    )
    internal, external = Door(service["spec"]["clusterIP"], 80), Door(pod.host_ip, node_port(service))
    await bed.terminate("here")
    await Client(bed, pod).reaches(internal, "here")
    await Client(bed, outside).reaches(external, "here")
    await bed.end(pod, here)
    await Client(bed, pod).meets(internal, "TIMEOUT")
    await Client(bed, outside).meets(external, "TIMEOUT")


async def who_terminates_gets_nothing_new_and_keeps_what_it_has(bed: Bed) -> None:
    """SVC-26"""
    first, second, *_ = await bed.nodes(at_least=2)
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP)))
    pod, old = await bed.run(manifests.idle("pod", first), manifests.server("old", first, WEB, lingers_s=LINGERS_S))
    door = Door(address, 80)
    await Client(bed, pod, times=1).reaches(door, "old")
    async with bed.asking(pod, "converse", host=address, port=80, seconds=4.0) as conversation:
        await bed.run(manifests.server("new", second, WEB))
        await Client(bed, pod).reaches(door, "old", "new")
        await bed.terminate("old")
        await Client(bed, pod).reaches(door, "new")
        told = await conversation
    assert set(told.get("names", ())) == {"old"}, f"the connection that the terminating endpoint had: {told}"
    await bed.end(pod, old)


async def unready_addresses_are_published_where_asked(bed: Bed) -> None:
    """SVC-27"""
    first, second, *_ = await bed.nodes(at_least=2)
    port = Port(80, HTTP)
    published = Door(await bed.serve(manifests.service("published", WEB, port, publishNotReadyAddresses=True)), 80)
    withheld = Door(await bed.serve(manifests.service("withheld", WEB, port)), 80)
    await bed.create(manifests.server("unready", second, WEB, lingers_s=LINGERS_S, gets_ready=False))
    (client,) = await bed.run(manifests.idle("client", first))
    await Client(bed, client).reaches(published, "unready")
    await Client(bed, client).meets(withheld, "REFUSED")
    unready = status(await bed.client.get(POD, "unready", bed.namespace))["podIP"]
    await bed.client.delete(POD, "unready", bed.namespace)
    await Client(bed, client).reaches(published, "unready")
    await Client(bed, client).meets(withheld, "REFUSED")
    await bed.ask(client, "http", host=unready, port=HTTP, path="/exit")
    await Client(bed, client).meets(published, "REFUSED")
