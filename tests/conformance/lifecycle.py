"""B. Services that change, and what is no Service: SVC-11, SVC-16, SVC-17, SVC-35, SVC-36, SVC-40 … SVC-42, SVC-44."""

from __future__ import annotations

from ipaddress import IPv4Address

from testbed.api.kinds import SERVICE
from testbed.api.objects import Object, name, spec, status
from testbed.api.wellknown import HEADLESS_LABEL, SERVICE_PROXY_NAME_LABEL
from testbed.errors import TimedOut
from testbed.waiting import wait_until_async
from tests.conformance import manifests
from tests.conformance.bed import PROGRAMMED_S, READY_S, Bed, Running
from tests.conformance.manifests import HTTP, UDP, Port, node_port
from tests.conformance.reaching import Client, Door

WEB = {"app": "web"}
PORT = Port(80, HTTP)


async def types_can_be_changed(bed: Bed) -> None:
    """SVC-11"""
    client, *_ = await _clients_and_server(bed)
    await bed.serve(manifests.service("target", WEB, PORT))
    target = f"target.{bed.namespace}.svc.cluster.local"
    by_name = Door(f"web.{bed.namespace}.svc.cluster.local", 80)
    await bed.create(manifests.service("web", {}, PORT, type="ExternalName", externalName=target))
    node = client.host_ip
    for new_type in ("ClusterIP", "NodePort"):
        await Client(bed, client, times=3).reaches(by_name, "one")
        served = await bed.change("web", type=new_type, externalName=None, selector=WEB)
        address = spec(served)["clusterIP"]
        assert IPv4Address(address), "it has a ClusterIP again"
        await _resolves(bed, client, by_name.host, address)
        doors = [Door(address, 80), *([Door(node, node_port(served))] if new_type == "NodePort" else [])]
        for door in (by_name, *doors):
            await Client(bed, client, times=3).reaches(door, "one")
        alias = await bed.change("web", type="ExternalName", externalName=target, clusterIP=None, clusterIPs=None)
        left = spec(alias).get("clusterIP") or "", spec(alias)["ports"][0].get("nodePort", 0)
        assert left == ("", 0), f"as ExternalName it still has clusterIP and nodePort {left}"
        for door in doors:
            await Client(bed, client).is_turned_away(door)
        await _can_be_taken(bed, served)


async def undefined_ports_are_refused(bed: Bed) -> None:
    """SVC-16"""
    address = await bed.serve(manifests.service("web", WEB, PORT))
    pod, host, _ = await _clients_and_server(bed)
    for client in (pod, host):
        await Client(bed, client, times=3).reaches(Door(address, 80), "one")
        await Client(bed, client).finds_no_such_port(Door(address, 81))


async def addresses_of_nobody_are_silent(bed: Bed) -> None:
    """SVC-17"""
    pod, host, _ = await _clients_and_server(bed)
    kubernetes = await bed.client.get(SERVICE, "kubernetes", "default")
    # Of the band that the allocator leaves to those who choose themselves (KEP-3070).
    free = str(IPv4Address(spec(kubernetes)["clusterIP"]) + 219)
    for client in (pod, host):
        await Client(bed, client).meets(Door(free, 80), "TIMEOUT")


async def another_proxys_services_are_left_alone(bed: Bed) -> None:
    """SVC-35"""
    await _label_stops_the_proxy(bed, SERVICE_PROXY_NAME_LABEL, "somebody-else")


async def headless_labels_stop_the_proxy(bed: Bed) -> None:
    """SVC-36"""
    await _label_stops_the_proxy(bed, HEADLESS_LABEL, "")


async def ports_can_be_changed(bed: Bed) -> None:
    """SVC-40"""
    address = await bed.serve(manifests.service("web", WEB, PORT))
    client, *_ = await _clients_and_server(bed)
    steps: tuple[tuple[set[int], set[int]], ...] = (({80, 81}, set()), ({81}, {80}), ({82}, {80, 81}))
    for here, gone in steps:
        wanted = manifests.service("web", WEB, *(Port(number, HTTP) for number in sorted(here)))
        await bed.change("web", ports=spec(wanted)["ports"])
        for number in here:
            await Client(bed, client, times=3).reaches(Door(address, number), "one")
        for number in gone:
            await Client(bed, client).finds_no_such_port(Door(address, number))


async def services_may_share_a_selector(bed: Bed) -> None:
    """SVC-41"""
    addresses = [await bed.serve(manifests.service(which, WEB, PORT, Port(81, UDP, "UDP"))) for which in ("a", "b")]
    pod, host, _ = await _clients_and_server(bed)
    for client in (pod, host):
        for address in addresses:
            await Client(bed, client, times=3).reaches(Door(address, 80), "one")
            await Client(bed, client, times=3).reaches(Door(address, 81, "UDP"), "one")


async def leading_zeros_are_no_addresses(bed: Bed) -> None:
    """SVC-42"""
    funny: tuple[Object, ...] = (
        {"externalIPs": ["010.1.2.3"]},
        {"clusterIP": "10.096.0.200"},
        {"type": "LoadBalancer", "loadBalancerSourceRanges": ["010.0.0.0/8"]},
    )
    for number, fields in enumerate(funny):
        await bed.refusal(manifests.service(f"web-{number}", WEB, PORT, **fields))
    await bed.serve(manifests.service("web", {}, PORT))
    await bed.refusal(manifests.endpoint_slice("web-1", "web", [{"addresses": ["010.1.2.3"]}], PORT))


async def a_status_has_a_life_of_its_own(bed: Bed) -> None:
    """SVC-44"""
    created = await bed.create(manifests.service("web", WEB, PORT))
    first, second = _condition(created, "First"), _condition(created, "Second")
    patched = await bed.client.patch(
        SERVICE, "web", {"status": {"conditions": [first]}}, bed.namespace, subresource="status"
    )
    assert status(patched)["conditions"] == [first], f"after a patch of /status: {status(patched)}"
    changed = {**patched, "spec": {**spec(patched), "ports": []}, "status": {"conditions": [first, second]}}
    updated = await bed.client.update(changed, subresource="status")
    assert status(updated)["conditions"] == [first, second], f"after an update of /status: {status(updated)}"
    assert spec(updated) == spec(patched), "an update of /status has changed the spec"
    read = await bed.client.get(SERVICE, "web", bed.namespace, subresource="status")
    assert (spec(read), status(read)) == (spec(updated), status(updated))
    written = await bed.client.patch(SERVICE, "web", {"status": {"conditions": None}}, bed.namespace)
    assert status(written)["conditions"] == [first, second], "a patch of the object itself has changed its status"
    await _delete_collection(bed)


async def _delete_collection(bed: Bed) -> None:
    for which, label in (("one", "go"), ("two", "go"), ("three", "stay")):
        service = manifests.service(which, WEB, PORT)
        service["metadata"]["labels"] = {"when": label}
        await bed.create(service)
    await bed.client.delete_collection(SERVICE, bed.namespace, label_selector="when=go")

    async def check() -> bool:
        return {name(item) for item in (await bed.client.list(SERVICE, bed.namespace)).items} == {"web", "three"}

    await wait_until_async(check, READY_S, "the end of exactly the Services with the label", every_s=0.05)


async def _label_stops_the_proxy(bed: Bed, label: str, value: str) -> None:
    """With the label nobody serves the Service's address, without it it is served again; its neighbour always is."""
    address = await bed.serve(manifests.service("web", WEB, PORT))
    neighbour = await bed.serve(manifests.service("neighbour", WEB, PORT))
    client, *_ = await _clients_and_server(bed)
    asker = Client(bed, client, times=3)
    for _ in range(2):
        await asker.reaches(Door(address, 80), "one")
        await _set_label(bed, label, value)
        await asker.is_turned_away(Door(address, 80))
        await asker.reaches(Door(neighbour, 80), "one")
        await _set_label(bed, label, None)
    await asker.reaches(Door(address, 80), "one")


async def _set_label(bed: Bed, label: str, value: str | None) -> None:
    await bed.client.patch(SERVICE, "web", {"metadata": {"labels": {label: value}}}, bed.namespace)


async def _clients_and_server(bed: Bed) -> list[Running]:
    """A pod, a process of its node, and on another node the one server."""
    first, second, *_ = await bed.nodes(at_least=2)
    return await bed.run(
        manifests.idle("pod", first),
        manifests.idle("host", first, host_network=True),
        manifests.server("one", second, WEB),
    )


async def _resolves(bed: Bed, client: Running, host: str, address: str) -> None:
    seen: list[object] = []

    async def check() -> bool:
        answer = await bed.ask(client, "resolve", host=host)
        seen[:] = [answer.get("addresses", answer)]
        return bool(answer.get("addresses") == [address])

    try:
        await wait_until_async(check, PROGRAMMED_S, "", every_s=0.05)
    except TimedOut:
        raise AssertionError(f"{host} resolves to {seen[0]}, and should to {address}") from None


async def _can_be_taken(bed: Bed, former: Object) -> None:
    """Another Service may have the addresses that this one had, and gives them back."""
    other = manifests.service("other", WEB, PORT, type=spec(former)["type"], clusterIP=spec(former)["clusterIP"])
    if spec(former)["type"] == "NodePort":
        other["spec"]["ports"][0]["nodePort"] = node_port(former)
    await bed.create(other)
    await bed.client.delete(SERVICE, "other", bed.namespace)


def _condition(obj: Object, kind: str) -> Object:
    """A condition with a time that every API server takes: when the object was made."""
    since = obj["metadata"]["creationTimestamp"]
    return {"type": kind, "status": "True", "reason": "Row", "message": "", "lastTransitionTime": since}
