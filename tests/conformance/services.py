"""B. Services, as far as ClusterIPs go: SVC-01 … SVC-05, SVC-12 … SVC-14."""

from __future__ import annotations

from testbed.api.kinds import ENDPOINT_SLICE, ENDPOINTS, SERVICE
from testbed.api.objects import spec
from testbed.api.wellknown import SERVICE_NAME_LABEL
from testbed.waiting import wait_until_async
from tests.conformance import manifests
from tests.conformance.bed import READY_S, Bed, Running
from tests.conformance.manifests import HTTP, UDP, Port, node_port
from tests.conformance.network import expect_source
from tests.conformance.reaching import Client, Door

QUICKLY_S = 0.5
WEB = {"app": "web"}


async def the_api_is_a_service(bed: Bed) -> None:
    """SVC-01"""
    service = await bed.client.get(SERVICE, "kubernetes", "default")
    endpoints = await bed.client.get(ENDPOINTS, "kubernetes", "default")
    selector = f"{SERVICE_NAME_LABEL}=kubernetes"
    slices = (await bed.client.list(ENDPOINT_SLICE, "default", label_selector=selector)).items
    by_endpoints = {a["ip"] for subset in endpoints["subsets"] for a in subset["addresses"]}
    by_slices = {a for item in slices for endpoint in item["endpoints"] for a in endpoint["addresses"]}
    assert by_endpoints, "default/kubernetes has no endpoint"
    assert by_endpoints == by_slices, f"Endpoints say {by_endpoints}, EndpointSlices {by_slices}"
    pod, host = await _pod_and_host(bed)
    for client in (pod, host):
        # The API server speaks TLS: to plain HTTP it answers 400 or hangs up, and both show that it is there.
        answer = await bed.ask(client, "tls", host=spec(service)["clusterIP"], port=443)
        assert answer["outcome"] == "OK", f"TLS to the Service default/kubernetes from {client.name}: {answer}"


async def endpoints_follow_each_step(bed: Bed) -> None:
    """SVC-02"""
    await bed.serve(manifests.service("web", WEB, Port(80, HTTP)))
    await bed.expect_endpoints("web", set())
    (one,) = await bed.run(manifests.server("one", labels=WEB))
    await bed.expect_endpoints("web", {(one.ip, HTTP, "TCP")})
    (two,) = await bed.run(manifests.server("two", labels=WEB))
    await bed.expect_endpoints("web", {(one.ip, HTTP, "TCP"), (two.ip, HTTP, "TCP")})
    await bed.delete_pod("one")
    await bed.expect_endpoints("web", {(two.ip, HTTP, "TCP")})
    await bed.delete_pod("two")
    await bed.expect_endpoints("web", set())


async def each_port_has_its_own_endpoints(bed: Bed) -> None:
    """SVC-03"""
    ports = Port(80, "first", name="one"), Port(81, "second", name="two")
    address = await bed.serve(manifests.service("web", WEB, *ports))
    one, two, client = await bed.run(
        manifests.server("one", labels=WEB, port_names=("first", "udp")),
        manifests.server("two", labels=WEB, port_names=("second", "udp")),
        manifests.server("client"),
    )
    for port, name, pod in ((80, "one", one), (81, "two", two)):
        await _expect_port(bed, "web", name, {(pod.ip, HTTP)})
        answer = await bed.ask_until(client, "OK", "http", host=address, port=port, path="/hostname")
        assert answer["body"] == pod.name, f"port {port} leads to {answer['body']}, not {pod.name}"


async def every_backend_is_reached(bed: Bed) -> None:
    """SVC-04"""
    first, second, *_ = await bed.nodes(at_least=2)
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP), Port(81, UDP, "UDP")))
    *backends, pod, host, elsewhere = await bed.run(
        *(manifests.server(f"web-{i}", first, WEB) for i in range(3)),
        manifests.idle("pod", first),
        manifests.idle("host", first, host_network=True),
        manifests.idle("elsewhere", second, host_network=True),
    )
    await bed.expect_endpoints("web", {(b.ip, *port) for b in backends for port in ((HTTP, "TCP"), (UDP, "UDP"))})
    everyone = {backend.name for backend in backends}
    for client in (pod, host, elsewhere):
        for door in (Door(address, 80), Door(address, 81, "UDP")):
            await Client(bed, client).reaches(door, *everyone)


async def protocols_of_one_port_are_apart(bed: Bed) -> None:
    """SVC-05"""
    tcp, udp = Port(80, HTTP, "TCP"), Port(80, UDP, "UDP")
    address = await bed.serve(manifests.service("web", WEB, tcp, udp))
    _, client = await bed.run(manifests.server("one", labels=WEB), manifests.server("client"))
    over_tcp = ("http", {"host": address, "port": 80, "path": "/hostname", "timeout_s": 0.5})
    over_udp = ("udp", {"host": address, "port": 80, "message": "hostname", "timeout_s": 0.5})
    for ports, wanted in (((tcp, udp), [True, True]), ((tcp,), [True, False]), ((udp,), [False, True])):
        await bed.change("web", ports=spec(manifests.service("web", WEB, *ports))["ports"])

        async def check(wanted: list[bool] = wanted) -> bool:
            answers = await bed.ask_all(client, [over_tcp, over_udp])
            return [answer["outcome"] == "OK" for answer in answers] == wanted

        what = f"only {' and '.join(port.protocol for port in ports)} answering on the port"
        await wait_until_async(check, READY_S, what, every_s=0.05)


async def a_pod_reaches_itself_through_its_service(bed: Bed) -> None:
    """SVC-12"""
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP)))
    (pod,) = await bed.run(manifests.server("one", labels=WEB))
    question = ("http", {"host": address, "port": 80, "path": "/hostname"})
    await bed.ask_until(pod, "OK", "http", **question[1])
    answers = await bed.ask_all(pod, [question] * 10)
    assert [answer.get("body") for answer in answers] == [pod.name] * 10, f"hairpin: {answers}"


async def sources_are_kept_through_a_service(bed: Bed) -> None:
    """SVC-13"""
    first, second, *_ = await bed.nodes(at_least=2)
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP), Port(81, UDP, "UDP")))
    client, _ = await bed.run(manifests.idle("client", first), manifests.server("one", second, WEB))
    expect_source(await bed.ask_until(client, "OK", "http", host=address, port=80, path="/clientip"), client.ip)
    expect_source(await bed.ask_until(client, "OK", "udp", host=address, port=81, message="clientip"), client.ip)


async def no_endpoints_means_refused(bed: Bed) -> None:
    """SVC-14"""
    ports = Port(80, HTTP), Port(81, UDP, "UDP")
    service = await bed.create(manifests.service("web", WEB, *ports, type="NodePort"))
    nodes = [await bed.address_of(node) for node in (await bed.nodes())[:2]]
    doors = [(spec(service)["clusterIP"], 80, 81)]
    doors += [(node, node_port(service), node_port(service, 1)) for node in nodes]
    for client in await _pod_and_host(bed):
        for host, over_tcp, over_udp in doors:
            await bed.ask_until(client, "REFUSED", "tcp", host=host, port=over_tcp)
            answers = await bed.ask_all(
                client,
                [
                    ("tcp", {"host": host, "port": over_tcp}),
                    ("udp", {"host": host, "port": over_udp, "message": "hostname"}),
                ],
            )
            for answer in answers:
                assert answer["outcome"] == "REFUSED", f"{host} from {client.name}: {answer}"
                assert answer["seconds"] < QUICKLY_S, f"{host} refused {client.name} after {answer['seconds']:.2f} s"


async def _pod_and_host(bed: Bed) -> list[Running]:
    node = (await bed.nodes())[0]
    return await bed.run(manifests.idle("pod", node), manifests.idle("host", node, host_network=True))


async def _expect_port(bed: Bed, service: str, port: str, wanted: set[tuple[str, int]]) -> None:
    """Wait until this port of the Service, by its name, has exactly these endpoints."""

    async def check() -> bool:
        found = {
            (address, listed["port"])
            for item in await bed.slices(service)
            for listed in item.get("ports") or []
            for endpoint in item.get("endpoints") or []
            for address in endpoint["addresses"]
            if listed.get("name") == port
        }
        return found == wanted

    await wait_until_async(check, READY_S, f"{wanted} as the endpoints of port {port} of {service}", every_s=0.05)
