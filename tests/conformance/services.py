"""B. Services, as far as ClusterIPs go: SVC-01 … SVC-05, SVC-12 … SVC-14; and E: EPS-01, EPS-05."""

from __future__ import annotations

from testbed.api.kinds import ENDPOINT_SLICE, ENDPOINTS, POD, SERVICE
from testbed.api.objects import Object, controller_of, labels, spec, uid
from testbed.api.wellknown import MANAGED_BY_LABEL, SERVICE_NAME_LABEL
from testbed.errors import TimedOut
from testbed.waiting import wait_until_async
from tests.conformance import manifests
from tests.conformance.bed import PROGRAMMED_S, READY_S, Bed, Running
from tests.conformance.manifests import HTTP, UDP, Port
from tests.conformance.network import expect_source

REQUESTS = 60
"""With three backends, missing one in 60 draws happens once in 10^10 runs."""
QUICKLY_S = 0.5
WEB = {"app": "web"}
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
    over_tcp = ("http", {"host": address, "port": 80, "path": "/hostname"})
    over_udp = ("udp", {"host": address, "port": 81, "message": "hostname"})
    for client in (pod, host, elsewhere):
        await _expect_programmed(bed, client, address, everyone)
        for question in (over_tcp, over_udp):
            answers = await bed.ask_all(client, [question] * REQUESTS)
            lost = [answer for answer in answers if answer["outcome"] != "OK"]
            assert not lost, f"{len(lost)} of {REQUESTS} from {client.name} were lost, first: {lost[0]}"
            reached = {answer["body"] for answer in answers}
            assert reached == everyone, f"{client.name} reached {sorted(reached)} over {question[0]}"


async def protocols_of_one_port_are_apart(bed: Bed) -> None:
    """SVC-05"""
    tcp, udp = Port(80, HTTP, "TCP"), Port(80, UDP, "UDP")
    address = await bed.serve(manifests.service("web", WEB, tcp, udp))
    _, client = await bed.run(manifests.server("one", labels=WEB), manifests.server("client"))
    over_tcp = ("http", {"host": address, "port": 80, "path": "/hostname", "timeout_s": 0.5})
    over_udp = ("udp", {"host": address, "port": 80, "message": "hostname", "timeout_s": 0.5})
    for ports, wanted in (((tcp, udp), [True, True]), ((tcp,), [True, False]), ((udp,), [False, True])):
        await bed.set_ports("web", spec(manifests.service("web", WEB, *ports))["ports"])

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
    """SVC-14, the ClusterIP part"""
    address = await bed.serve(manifests.service("web", WEB, Port(80, HTTP), Port(81, UDP, "UDP")))
    for client in await _pod_and_host(bed):
        await bed.ask_until(client, "REFUSED", "tcp", host=address, port=80)
        over_tcp, over_udp = await bed.ask_all(
            client,
            [("tcp", {"host": address, "port": 80}), ("udp", {"host": address, "port": 81, "message": "hostname"})],
        )
        for answer in (over_tcp, over_udp):
            assert answer["outcome"] == "REFUSED", f"from {client.name}: {answer}"
            assert answer["seconds"] < QUICKLY_S, f"from {client.name}, refused only after {answer['seconds']:.2f} s"


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


async def _pod_and_host(bed: Bed) -> list[Running]:
    node = (await bed.nodes())[0]
    return await bed.run(manifests.idle("pod", node), manifests.idle("host", node, host_network=True))


def _stubborn_pod() -> Object:
    probe = {"tcpSocket": {"port": DOOR}, "periodSeconds": 1, "failureThreshold": 1}
    container = manifests.container(command=["python3", "-c", STUBBORN], readinessProbe=probe)
    return manifests.pod("stubborn", [container], labels=WEB, grace_s=5)


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


async def _expect_programmed(bed: Bed, client: Running, address: str, everyone: set[str]) -> None:
    """Wait until the client's node knows all backends: only then do lost requests count."""

    async def check() -> bool:
        question = ("http", {"host": address, "port": 80, "path": "/hostname"})
        answers = await bed.ask_all(client, [question] * REQUESTS)
        return {answer.get("body") for answer in answers} == everyone

    await wait_until_async(check, PROGRAMMED_S, f"the rules for {sorted(everyone)} on {client.node}", every_s=0.05)


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
