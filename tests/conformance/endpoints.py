"""E. EndpointSlices: EPS-01 … EPS-06."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network

from testbed.api import objects
from testbed.api.kinds import ENDPOINTS, NODE, POD, SERVICE
from testbed.api.objects import Object, controller_of, labels, name, parse_time, spec, uid
from testbed.api.wellknown import LAST_CHANGE_TRIGGER_TIME, MANAGED_BY_LABEL, SERVICE_NAME_LABEL
from testbed.errors import TimedOut
from testbed.waiting import wait_until_async
from tests.conformance import manifests
from tests.conformance.bed import PROGRAMMED_S, READY_S, Bed, NotApplicable, Running
from tests.conformance.manifests import HTTP, Port
from tests.conformance.reaching import Client, Door
from tests.e2e.asking import Answer

WEB = {"app": "web"}
METRICS = 10249
LATENCY = "kubeproxy_network_programming_duration_seconds"
CROWD = 150
DOOR, SWITCH = 9000, 9001
STUBBORN = f"""
import signal, socket
signal.signal(signal.SIGTERM, signal.SIG_IGN)
switch, door = socket.create_server(("", {SWITCH})), None
while True:
    door = door.close() if door else socket.create_server(("", {DOOR}))
    switch.accept()
"""
"""Listens on DOOR, which its readiness probe tries; each connection to SWITCH closes the door or opens it again."""


MANY_ADDRESSES = f"""
import socket, subprocess, sys
commands = "".join("address add " + address + "/32 dev lo\\n" for address in sys.argv[1:])
subprocess.run(["ip", "-batch", "-"], input=commands.encode(), check=True)
listener = socket.create_server(("", {HTTP}), backlog=200)
while True:
    connection = listener.accept()[0]
    connection.recv(4096)
    name = connection.getsockname()[0]
    connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(name), name.encode()))
    connection.close()
"""
"""Answers at each of the addresses in its arguments, with that address as its name."""


async def slices_belong_to_their_service(bed: Bed) -> None:
    """EPS-01"""
    service = await bed.create(manifests.service("web", WEB, Port(80, HTTP)))
    (pod,) = await bed.run(manifests.server("one", labels=WEB))
    await bed.expect_endpoints("web", {(pod.ip, HTTP, "TCP")})
    for item in await bed.slices("web"):
        assert labels(item).get(SERVICE_NAME_LABEL) == "web", labels(item)
        assert labels(item).get(MANAGED_BY_LABEL) == "endpointslice-controller.k8s.io", labels(item)
        assert controller_of(item).get("uid") == uid(service), f"its owner is {controller_of(item)}"
        endpoint = item["endpoints"][0]
        assert endpoint["targetRef"]["name"] == pod.name, f"its endpoint is {endpoint}"
        assert endpoint["nodeName"] == pod.node, f"its endpoint is {endpoint}"
    await bed.client.delete(SERVICE, "web", bed.namespace)

    async def check() -> bool:
        return not await bed.slices("web")

    await wait_until_async(check, READY_S, "the end of the slices of a deleted Service", every_s=0.05)


async def ports_sets_have_slices_of_their_own(bed: Bed) -> None:
    """EPS-02"""
    address = await bed.serve(manifests.service("web", WEB, Port(80, "http")))
    client, one, two, three = await bed.run(
        manifests.idle("client", (await bed.nodes())[0]),
        manifests.server("one", labels=WEB),
        manifests.server("two", labels=WEB, ports=(9080, 9081)),
        manifests.server("three", labels=WEB, ports=(9080, 9081)),
    )
    await bed.expect_endpoints("web", {(one.ip, HTTP, "TCP"), (two.ip, 9080, "TCP"), (three.ip, 9080, "TCP")})
    found = {
        tuple(port["port"] for port in item["ports"]): {a for e in item["endpoints"] for a in e["addresses"]}
        for item in await bed.slices("web")
        if item["endpoints"]
    }
    assert found == {(HTTP,): {one.ip}, (9080,): {two.ip, three.ip}}, f"slices by their ports: {found}"
    await Client(bed, client).reaches(Door(address, 80), "one", "two", "three")


async def endpoints_written_by_hand_are_mirrored(bed: Bed) -> None:
    """EPS-03"""
    address = await bed.serve(manifests.service("web", {}, Port(80, HTTP)))
    client, one, two = await bed.run(
        manifests.idle("client", (await bed.nodes())[0]), manifests.server("one"), manifests.server("two")
    )
    door = Door(address, 80)
    for server in (one, two):
        subset = {"addresses": [{"ip": server.ip}], "ports": [{"name": "tcp-80", "port": HTTP}]}
        if server is one:
            by_hand = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"}, "subsets": [subset]}
            await bed.create(by_hand)
        else:
            await bed.client.patch(ENDPOINTS, "web", {"subsets": [subset]}, bed.namespace)
        await bed.expect_endpoints("web", {(server.ip, HTTP, "TCP")})
        (mirror,) = await bed.slices("web")
        assert labels(mirror)[MANAGED_BY_LABEL] == "endpointslicemirroring-controller.k8s.io", labels(mirror)
        await Client(bed, client, times=10).reaches(door, server.name)
    await bed.client.delete(ENDPOINTS, "web", bed.namespace)
    await bed.expect_endpoints("web", set())
    await Client(bed, client).meets(door, "REFUSED")


async def slices_hold_a_hundred_and_are_merged(bed: Bed) -> None:
    """EPS-04. Its 150 pods are one pod with 150 addresses, and Pod objects of a node that nobody runs."""
    node = (await bed.nodes())[0]
    pod_cidr = IPv4Network(spec(await bed.client.get(NODE, node))["podCIDR"])
    if pod_cidr.num_addresses < 256:
        raise NotApplicable(f"it needs {CROWD} spare addresses in a node's pod CIDR, which is {pod_cidr}")
    addresses = [str(pod_cidr.broadcast_address - 1 - number) for number in range(CROWD)]
    crowded = manifests.container(
        command=["python3", "-c", MANY_ADDRESSES, *addresses],
        securityContext={"capabilities": {"add": ["NET_ADMIN"]}},
    )
    (client, _) = await bed.run(manifests.idle("client", node), manifests.pod("crowd", [crowded], node=node))
    service = await bed.serve(manifests.service("web", WEB, Port(80, HTTP)))
    try:
        await asyncio.gather(*(_pod_without_kubelet(bed, number, ip) for number, ip in enumerate(addresses)))
        await bed.expect_endpoints("web", {(ip, HTTP, "TCP") for ip in addresses})
        sizes = sorted(len(item["endpoints"]) for item in await bed.slices("web"))
        assert len(sizes) >= 2, f"all {sum(sizes)} endpoints are in one slice"
        assert sizes[-1] <= 100, f"a slice has {sizes[-1]} endpoints"
        await _expect_merged(bed, Client(bed, client), Door(service, 80), addresses)
    finally:
        for number in range(CROWD):
            await bed.client.delete(POD, f"web-{number}", bed.namespace, grace_period_s=0)


async def conditions_of_endpoints_follow_their_pod(bed: Bed) -> None:
    """EPS-05"""
    await bed.serve(manifests.service("web", WEB, Port(80, HTTP)))
    await bed.create(_stubborn_pod())
    pod = await bed.ready("stubborn")
    await _expect_conditions(bed, {"ready": True, "serving": True, "terminating": False})
    await bed.ask(pod, "tcp", host="127.0.0.1", port=SWITCH)
    await _expect_conditions(bed, {"ready": False, "serving": False, "terminating": False})
    await bed.ask(pod, "tcp", host="127.0.0.1", port=SWITCH)
    await _expect_conditions(bed, {"ready": True, "serving": True, "terminating": False})
    await bed.client.delete(POD, "stubborn", bed.namespace)
    await _expect_conditions(bed, {"ready": False, "serving": True, "terminating": True})


async def changes_carry_the_time_of_their_cause(bed: Bed) -> None:
    """EPS-06"""
    service = await bed.create(manifests.service("web", WEB, Port(80, HTTP)))
    node = (await bed.nodes())[0]
    (host,) = await bed.run(manifests.idle("host", node, host_network=True))
    before = await _programmed_changes(bed, host)
    (server,) = await bed.run(manifests.server("one", labels=WEB))
    await bed.expect_endpoints("web", {(server.ip, HTTP, "TCP")})
    (item,) = await bed.slices("web")
    moment = parse_time(objects.annotations(item)[LAST_CHANGE_TRIGGER_TIME])
    assert moment >= parse_time(service["metadata"]["creationTimestamp"]), f"the change is dated {moment}"

    async def check() -> bool:
        return await _programmed_changes(bed, host) > before

    await wait_until_async(check, PROGRAMMED_S, f"a programming latency in the metrics of {node}", every_s=0.1)


def _stubborn_pod() -> Object:
    probe = {"tcpSocket": {"port": DOOR}, "periodSeconds": 1, "failureThreshold": 1}
    container = manifests.container(command=["python3", "-c", STUBBORN], readinessProbe=probe)
    return manifests.pod("stubborn", [container], labels=WEB, grace_s=5)


async def _expect_conditions(bed: Bed, wanted: dict[str, bool]) -> None:
    seen: list[object] = []

    async def check() -> bool:
        endpoints = [endpoint for item in await bed.slices("web") for endpoint in item.get("endpoints") or []]
        seen[:] = [endpoint["conditions"] for endpoint in endpoints]
        return seen == [wanted]

    try:
        await wait_until_async(check, READY_S, "conditions", every_s=0.05)
    except TimedOut:
        raise AssertionError(f"the endpoint's conditions should be {wanted}, and are {seen}") from None


async def _pod_without_kubelet(bed: Bed, number: int, address: str) -> None:
    """A Pod object that is Ready at this address, though nobody runs it."""
    created = await bed.create(manifests.pod(f"web-{number}", [manifests.container()], node="nowhere", labels=WEB))
    conditions = [{"type": "Ready", "status": "True"}]
    document = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions}
    await bed.client.patch(POD, name(created), {"status": document}, bed.namespace, subresource="status")


async def _expect_merged(bed: Bed, client: Client, door: Door, addresses: list[str]) -> None:
    """Endpoints of every slice answer, each with its own address."""
    slices = [{a for e in item["endpoints"] for a in e["addresses"]} for item in await bed.slices("web")]

    async def check() -> bool:
        names = set((await client.survey(door)).get("names", ()))
        return bool(names) and names <= set(addresses) and all(names & each for each in slices)

    await wait_until_async(check, PROGRAMMED_S, f"answers from each of the {len(slices)} slices", every_s=0.1)


async def _programmed_changes(bed: Bed, host: Running) -> int:
    """How many changes of endpoints the node's proxy has timed, by its metrics."""
    answer: Answer = {}
    for address in (host.host_ip, "127.0.0.1"):
        answer = await bed.ask(host, "http", host=address, port=METRICS, path="/metrics")
        if answer["outcome"] == "OK":
            break
    else:
        raise NotApplicable(f"nobody answers for the proxy of {host.node} on port {METRICS}: {answer}")
    lines = [line for line in answer["body"].splitlines() if line.startswith(f"{LATENCY}_count")]
    return sum(int(float(line.split()[-1])) for line in lines)
