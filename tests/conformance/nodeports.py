"""B. Services from outside: SVC-06, SVC-31 … SVC-34."""

from __future__ import annotations

import yaml

from testbed.api.kinds import SERVICE
from testbed.api.objects import Object, spec
from testbed.errors import Invalid
from testbed.waiting import wait_until_async
from tests.conformance import manifests
from tests.conformance.bed import READY_S, Bed
from tests.conformance.manifests import HTTP, UDP, Port, node_port
from tests.conformance.reaching import Client, Door

WEB = {"app": "web"}
NOWHERE = "198.51.100.31"
"""Of TEST-NET-2 (RFC 5737): an address that no node has and no route leads to."""
STRANGERS = "192.0.2.0/24"
"""TEST-NET-1: nobody lives there."""
FIRST, LAST = 30000, 32767


async def node_ports_answer_on_every_node(bed: Bed) -> None:
    """SVC-06"""
    first, second, *others = await bed.nodes(at_least=2)
    ports = Port(80, HTTP), Port(81, UDP, "UDP")
    service = await bed.create(manifests.service("web", WEB, *ports, type="NodePort"))
    pod, host, outside, _ = await bed.run(
        manifests.idle("pod", first),
        manifests.idle("host", first, host_network=True),
        manifests.idle("outside", await bed.outside(), host_network=True),
        manifests.server("one", second, WEB),
    )
    nodes = [await bed.address_of(node) for node in (first, second, *others)]
    for number, protocol in ((0, "TCP"), (1, "UDP")):
        inside = [Door(spec(service)["clusterIP"], 80 + number, protocol)]
        if protocol == "TCP":
            inside.append(Door(f"web.{bed.namespace}.svc", 80))
        everywhere = [Door(node, node_port(service, number), protocol) for node in nodes]
        for client, doors in ((pod, inside + everywhere), (host, inside[:1] + everywhere), (outside, everywhere)):
            for door in doors:
                await Client(bed, client, times=3).reaches(door, "one")


async def external_addresses_lead_to_backends(bed: Bed) -> None:
    """SVC-31"""
    first, second, *_ = await bed.nodes(at_least=2)
    await bed.serve(manifests.service("web", WEB, Port(80, HTTP), externalIPs=[NOWHERE]))
    pod, host, *_ = await bed.run(
        manifests.idle("pod", first),
        manifests.idle("host", first, host_network=True),
        manifests.server("one", first, WEB),
        manifests.server("two", second, WEB),
    )
    for client in (pod, host):
        await Client(bed, client).reaches(Door(NOWHERE, 80), "one", "two")


async def load_balancers_take_only_allowed_sources(bed: Bed) -> None:
    """SVC-32"""
    first, second, *_ = await bed.nodes(at_least=2)
    (outside,) = await bed.run(manifests.idle("outside", await bed.outside(), host_network=True))
    pod, _ = await bed.run(manifests.idle("pod", first), manifests.server("one", second, WEB))
    port = Port(80, HTTP)
    allowed = manifests.service(
        "allowed", WEB, port, type="LoadBalancer", loadBalancerSourceRanges=[f"{outside.ip}/32", STRANGERS]
    )
    denied = manifests.service("denied", WEB, port, type="LoadBalancer", loadBalancerSourceRanges=[STRANGERS])
    (_, allowed_ip), (created, denied_ip) = await bed.balance(allowed), await bed.balance(denied)
    client = Client(bed, outside, times=10)
    await client.reaches(Door(allowed_ip, 80), "one")
    await client.reaches(Door(await bed.address_of(first), node_port(created)), "one")
    await client.meets(Door(denied_ip, 80), "TIMEOUT")
    await Client(bed, pod).meets(Door(denied_ip, 80), "TIMEOUT")
    await bed.change("denied", loadBalancerSourceRanges=None)
    await client.reaches(Door(denied_ip, 80), "one")


async def node_ports_are_served_where_the_topology_says(bed: Bed) -> None:
    """SVC-33"""
    cluster = bed.subject.own()
    first, second, *_ = await bed.nodes(at_least=2)
    service = await bed.create(manifests.service("web", WEB, Port(80, HTTP), type="NodePort"))
    pod, host, _ = await bed.run(
        manifests.idle("pod", first),
        manifests.idle("host", first, host_network=True),
        manifests.server("one", second, WEB),
    )
    own, bridge = Door(pod.host_ip, node_port(service)), Door(_bridge_of(pod.ip), node_port(service))
    await Client(bed, pod, times=10).reaches(own, "one")
    # 127.0.0.1: kube-proxy serves it in iptables mode with route_localnet, which is never set here.
    await Client(bed, host).is_turned_away(Door("127.0.0.1", node_port(service)))
    before = yaml.safe_load(cluster.file.read_text())["spec"].get("services") or {}
    try:
        await bed.subject.reshape(services={**before, "nodePortAddresses": ["10.244.0.0/16"]})
        await Client(bed, pod, times=10).reaches(bridge, "one")
        await Client(bed, pod).is_turned_away(own)
    finally:
        await bed.subject.reshape(services=before)
    await Client(bed, pod, times=10).reaches(own, "one")


async def node_ports_are_in_range_and_given_once(bed: Bed) -> None:
    """SVC-34"""
    service = await bed.create(manifests.service("web", WEB, Port(80, HTTP), type="NodePort"))
    taken = node_port(service)
    assert FIRST <= taken <= LAST, f"the node port {taken} is out of the range"
    for wanted, why in ((taken, "that is taken"), (FIRST - 1, "below the range"), (LAST + 1, "above the range")):
        said = await bed.refusal(_with_node_port("second", wanted))
        assert str(wanted) in said, f"the refusal of the node port {wanted}, {why}, does not name it: {said}"
    await bed.client.delete(SERVICE, "web", bed.namespace)

    async def check() -> Object | None:
        try:
            return await bed.create(_with_node_port("third", taken))
        except Invalid:
            return None

    again = await wait_until_async(check, READY_S, f"a new Service with the released node port {taken}", every_s=0.05)
    assert node_port(again) == taken


def _with_node_port(name: str, number: int) -> Object:
    service = manifests.service(name, WEB, Port(80, HTTP), type="NodePort")
    service["spec"]["ports"][0]["nodePort"] = number
    return service


def _bridge_of(pod_ip: str) -> str:
    """The address of the bridge that the pod is on, in one of our own clusters: .1 of its /24."""
    return f"{pod_ip.rpartition('.')[0]}.1"
