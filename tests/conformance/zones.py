"""B. Endpoints near by: SVC-28 … SVC-30."""

from __future__ import annotations

from testbed.api.kinds import ENDPOINT_SLICE, NODE
from testbed.api.objects import Object, labels
from testbed.api.wellknown import ZONE_LABEL
from tests.conformance import manifests
from tests.conformance.bed import Bed, NotApplicable, Running
from tests.conformance.manifests import HTTP, Port
from tests.conformance.reaching import Client, Door

WEB = {"app": "web"}
PORT = Port(80, HTTP)


async def a_zone_with_endpoints_keeps_to_itself(bed: Bed) -> None:
    """SVC-28"""
    first, second, third = await _nodes_of_three_zones(bed)
    doors = [
        Door(await bed.serve(manifests.service(f"web-{number}", WEB, PORT, trafficDistribution=distribution)), 80)
        for number, distribution in enumerate(("PreferClose", "PreferSameZone"))
    ]
    one, two, three, *_ = await bed.run(
        *(manifests.idle(f"client-{node}", node) for node in (first, second, third)),
        manifests.server("one", first, WEB),
        manifests.server("two", second, WEB),
    )
    for door in doors:
        await Client(bed, one).reaches(door, "one")
        await Client(bed, two).reaches(door, "two")
        await Client(bed, three).reaches(door, "one", "two")


async def a_node_with_endpoints_keeps_to_itself(bed: Bed) -> None:
    """SVC-29"""
    first, second, third = await _nodes_of_three_zones(bed)
    neighbour = await _neighbour_of(bed, first)
    service = manifests.service("web", WEB, PORT, trafficDistribution="PreferSameNode")
    door = Door(await bed.serve(service), 80)
    one, two, three, beside, *_ = await bed.run(
        *(manifests.idle(f"client-{node}", node) for node in (first, second, third, neighbour)),
        manifests.server("one", first, WEB),
        manifests.server("two", second, WEB),
    )
    await Client(bed, one).reaches(door, "one")
    await Client(bed, two).reaches(door, "two")
    await Client(bed, beside).reaches(door, "one")
    await Client(bed, three).reaches(door, "one", "two")


async def hints_count_only_if_all_have_them(bed: Bed) -> None:
    """SVC-30"""
    first, second, _ = await _nodes_of_three_zones(bed)
    door = Door(await bed.serve(manifests.service("web", {}, PORT, trafficDistribution="PreferClose")), 80)
    client, one, two = await bed.run(
        manifests.idle("client", first), manifests.server("one", first), manifests.server("two", second)
    )
    zones = await _zones(bed)
    endpoints = [_hinted(pod, zones[pod.node]) for pod in (one, two)]
    await bed.create(manifests.endpoint_slice("web-1", "web", endpoints, PORT))
    await Client(bed, client).reaches(door, "one")
    del endpoints[1]["hints"]
    await bed.client.patch(ENDPOINT_SLICE, "web-1", {"endpoints": endpoints}, bed.namespace)
    await Client(bed, client).reaches(door, "one", "two")


def _hinted(pod: Running, zone: str) -> Object:
    return {
        "addresses": [pod.ip],
        "nodeName": pod.node,
        "zone": zone,
        "conditions": {"ready": True},
        "hints": {"forZones": [{"name": zone}]},
    }


async def _zones(bed: Bed) -> dict[str, str]:
    """Zone by node."""
    return {node: labels(await bed.client.get(NODE, node)).get(ZONE_LABEL, "") for node in await bed.nodes()}


async def _nodes_of_three_zones(bed: Bed) -> list[str]:
    """The first node of each of three zones."""
    first_of: dict[str, str] = {}
    for node, zone in (await _zones(bed)).items():
        if zone:
            first_of.setdefault(zone, node)
    if len(first_of) < 3:
        raise NotApplicable(f"it needs nodes in three zones; there are {len(first_of)}")
    return list(first_of.values())[:3]


async def _neighbour_of(bed: Bed, node: str) -> str:
    """Another node of the same zone."""
    zones = await _zones(bed)
    for other, zone in zones.items():
        if zone == zones[node] and other != node:
            return other
    raise NotApplicable(f"it needs two nodes in one zone, and {node} is alone in {zones[node]}")
