"""NET-07: host ports."""

from __future__ import annotations

from testbed.api.objects import Object
from tests.conformance import manifests
from tests.conformance.bed import Bed
from tests.conformance.manifests import HTTP, UDP
from tests.conformance.reaching import Client, Door

NUMBER = 54323


async def host_ports_differ_by_address_or_protocol(bed: Bed) -> None:
    """NET-07"""
    first, second, *_ = await bed.nodes(at_least=2)
    node = await bed.address_of(first)
    pod, host, over_tcp, *_ = await bed.run(
        manifests.idle("pod", second),
        manifests.idle("host", second, host_network=True),
        _with_host_port("tcp", first, node, HTTP, "TCP"),
        _with_host_port("udp", first, node, UDP, "UDP"),
    )
    doors = {Door(node, NUMBER): "tcp", Door(node, NUMBER, "UDP"): "udp"}
    if bed.subject.cluster:
        # Another address of the node: its bridge's. Of a foreign cluster's nodes nobody knows a second one.
        bridge = f"{over_tcp.ip.rpartition('.')[0]}.1"
        await bed.run(_with_host_port("bridge", first, bridge, HTTP, "TCP"))
        doors[Door(bridge, NUMBER)] = "bridge"
    for client in (pod, host):
        for door, name in doors.items():
            await Client(bed, client, times=5).reaches(door, name)


def _with_host_port(name: str, node: str, address: str, port: int, protocol: str) -> Object:
    server = manifests.server(name, node)
    (container,) = server["spec"]["containers"]
    wanted = next(listed for listed in container["ports"] if listed["containerPort"] == port)
    wanted |= {"hostIP": address, "hostPort": NUMBER, "protocol": protocol}
    return server
