"""Which endpoints stand for a Service."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.api.objects import Key, Object
from testbed.proxy.servicemap import Location, arrange, health_check, offers_of
from testbed.proxy.virtualport import Endpoint, HealthCheck, VirtualPort
from tests.unit.proxy.objects import READY, TERMINATING, UNREADY, endpoint, service, slice_of

A, B, C = Location("a", "z1"), Location("b", "z2"), Location("c", "")
GONE = {"ready": False, "serving": False, "terminating": True}


def service_ports(service: Object, slices: Sequence[Object], here: Location = A) -> tuple[VirtualPort, ...]:
    """What a node serves for the Service."""
    return tuple(offer.at(here) for offer in offers_of(service, slices))


def hosts(endpoints: Iterable[Endpoint]) -> list[int]:
    """The last numbers of their addresses."""
    return sorted(int(str(each.address).rpartition(".")[2]) for each in endpoints)


def targets(ports: tuple[VirtualPort, ...]) -> list[tuple[str, int, list[str]]]:
    return [(p.protocol, p.port, sorted(f"{e.address}:{e.port}" for e in p.cluster)) for p in ports]


@pytest.mark.parametrize(
    ("endpoints", "chosen", "serving"),
    [
        ([("10.244.1.2", READY), ("10.244.1.3", READY)], ["10.244.1.2", "10.244.1.3"], 2),
        ([("10.244.1.2", READY), ("10.244.1.3", UNREADY)], ["10.244.1.2"], 1),
        ([("10.244.1.2", READY), ("10.244.1.3", TERMINATING)], ["10.244.1.2"], 2),
        ([("10.244.1.2", UNREADY), ("10.244.1.3", TERMINATING)], ["10.244.1.3"], 1),
        ([("10.244.1.2", {"ready": False, "serving": False, "terminating": True})], [], 0),
        ([("10.244.1.2", {})], ["10.244.1.2"], 1),
        ([], [], 0),
    ],
    ids=[
        "all that are ready",
        "only those that are ready",
        "none that terminates while others are ready, though it may keep its flows",
        "those that still serve while they terminate, where none is ready",
        "none that has stopped serving",
        "no condition means ready",
        "none",
    ],
)
def test_endpoints_are_selected_as_kube_proxy_does(
    endpoints: list[tuple[str, dict[str, bool]]], chosen: list[str], serving: int
) -> None:
    slices = [slice_of([endpoint(address, conditions) for address, conditions in endpoints])]
    [port] = service_ports(service(), slices)
    assert [str(e.address) for e in port.cluster] == chosen
    assert len(port.serving) == serving


def test_ports_are_matched_by_name_and_protocol_and_may_have_other_numbers_in_each_slice() -> None:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]
    slices = [
        slice_of([endpoint("10.244.1.2")], ports=[{"name": "dns", "port": 5353, "protocol": "UDP"}]),
        slice_of([endpoint("10.244.1.3")], ports=[{"name": "dns", "port": 5354, "protocol": "UDP"}]),
        slice_of([endpoint("10.244.1.2")], ports=[{"name": "dns-tcp", "port": 5355, "protocol": "TCP"}]),
    ]
    assert targets(service_ports(service(ports=ports), slices)) == [
        ("udp", 53, ["10.244.1.2:5353", "10.244.1.3:5354"]),
        ("tcp", 53, ["10.244.1.2:5355"]),
    ]


def test_an_endpoint_in_two_slices_is_one() -> None:
    [port] = service_ports(service(), [slice_of([endpoint("10.244.1.2")])] * 2)
    assert len(port.cluster) == 1


@pytest.mark.parametrize(
    "other",
    [
        service(clusterIP="None"),
        service(clusterIP=""),
        service(type="ExternalName", externalName="example.org"),
        service(clusterIP="fd00::1"),
        service(labels={"service.kubernetes.io/service-proxy-name": "other"}),
        service(labels={"service.kubernetes.io/headless": ""}),
    ],
    ids=["headless", "not allocated yet", "ExternalName", "IPv6 only", "of another proxy", "labelled headless"],
)
def test_services_that_are_not_ours_to_serve_have_no_virtual_port(other: Object) -> None:
    assert service_ports(other, [slice_of([endpoint("10.244.1.2")])]) == ()


def test_a_slice_of_another_family_or_port_contributes_nothing() -> None:
    slices = [
        slice_of([endpoint("fd00::2")], addressType="IPv6"),
        slice_of([endpoint("10.244.1.2")], ports=[{"name": "other", "port": 80}]),
    ]
    [port] = service_ports(service(), slices)
    assert (port.cluster, port.has_endpoints) == ((), False)


def test_a_port_carries_everything_that_its_service_says() -> None:
    wanted = service(
        ports=[{"name": "http", "port": 80, "nodePort": 30080}],
        type="LoadBalancer",
        externalIPs=["192.0.2.1", "fd00::1"],
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 7}},
        loadBalancerSourceRanges=["203.0.113.10/24"],
        externalTrafficPolicy="Local",
    )
    ingress = [{"ip": "198.19.0.1"}, {"ip": "198.19.0.2", "ipMode": "Proxy"}, {"hostname": "lb.example.org"}]
    [port] = service_ports({**wanted, "status": {"loadBalancer": {"ingress": ingress}}}, [])
    assert port == VirtualPort(
        service=Key("default", "web"),
        name="http",
        protocol="tcp",
        cluster_ip=IPv4Address("10.96.0.10"),
        port=80,
        node_port=30080,
        external_ips=(IPv4Address("192.0.2.1"),),
        load_balancer_ips=(IPv4Address("198.19.0.1"),),
        source_ranges=(IPv4Network("203.0.113.0/24"),),
        affinity_s=7,
        is_external_local=True,
    )


@pytest.mark.parametrize(
    ("endpoints", "at", "cluster", "local"),
    [
        pytest.param([("a", READY), ("b", READY)], A, [1, 2], [1], id="local ones are those of the node"),
        pytest.param([("b", READY)], A, [1], [], id="none is local"),
        pytest.param(
            [("a", TERMINATING), ("b", READY)], A, [2], [1], id="local terminating ones, ready ones elsewhere"
        ),
        pytest.param([("a", TERMINATING), ("a", READY)], A, [2], [2], id="a local one is ready, and others terminate"),
        pytest.param([("a", TERMINATING), ("b", TERMINATING)], A, [1, 2], [1], id="all of them terminate"),
        pytest.param([("a", GONE), ("b", READY)], A, [2], [], id="the local one serves no more"),
    ],
)
def test_policy_local_takes_the_nodes_own_endpoints(
    endpoints: list[tuple[str, dict[str, bool]]], at: Location, cluster: list[int], local: list[int]
) -> None:
    addressed = [endpoint(f"10.244.1.{n}", how, node=node) for n, (node, how) in enumerate(endpoints, 1)]
    [port] = service_ports(service(internalTrafficPolicy="Local"), [slice_of(addressed)], at)
    assert (hosts(port.cluster), hosts(port.local)) == (cluster, local)
    assert hosts(port.internal) == local
    assert port.internal_refusal == ("" if local else "drop")
    assert port.external_refusal == ""


def test_no_endpoint_anywhere_is_refused_and_none_here_is_dropped() -> None:
    local = service(internalTrafficPolicy="Local", externalTrafficPolicy="Local")
    [nowhere] = service_ports(local, [])
    [elsewhere] = service_ports(local, [slice_of([endpoint("10.244.1.2", node="b")])])
    assert (nowhere.internal_refusal, nowhere.external_refusal) == ("refuse", "refuse")
    assert (elsewhere.internal_refusal, elsewhere.external_refusal) == ("drop", "drop")


@pytest.mark.parametrize(
    ("hints", "at", "chosen"),
    [
        pytest.param([("z1", ""), ("z2", "")], A, [1], id="those for the zone"),
        pytest.param([("z1", ""), ("z1", "")], B, [1, 2], id="none for the zone: all"),
        pytest.param([("z1", ""), ("", "")], A, [1, 2], id="one without a hint: hints are ignored"),
        pytest.param([("z1", ""), ("z2", "")], C, [1, 2], id="a node without a zone: all"),
        pytest.param([("z1", "a"), ("z1", "x")], A, [1], id="those for the node come first"),
        pytest.param([("z1", "x"), ("z2", "b")], A, [1], id="none for the node: those for its zone"),
        pytest.param([("z1", "a"), ("z1", "")], A, [1, 2], id="one without a node's hint: zones count"),
    ],
)
def test_topology_hints_are_followed_entirely_or_not_at_all(
    hints: list[tuple[str, str]], at: Location, chosen: list[int]
) -> None:
    endpoints = [
        endpoint(f"10.244.1.{number}", zones=[zone] if zone else (), nodes=[node] if node else ())
        for number, (zone, node) in enumerate(hints, 1)
    ]
    [port] = service_ports(service(), [slice_of(endpoints)], at)
    assert hosts(port.cluster) == chosen


def test_a_terminating_endpoint_needs_no_hint() -> None:
    endpoints = [
        endpoint("10.244.1.1", zones=["z1"]),
        endpoint("10.244.1.2", TERMINATING),
        endpoint("10.244.1.3", zones=["z2"]),
    ]
    [port] = service_ports(service(), [slice_of(endpoints)], A)
    assert hosts(port.cluster) == [1]


def test_what_every_node_serves_alike_says_so() -> None:
    plain, hinted = slice_of([endpoint("10.244.1.1")]), slice_of([endpoint("10.244.1.1", zones=["z1"])])
    assert offers_of(service(), [plain])[0].is_same_everywhere
    assert not offers_of(service(), [hinted])[0].is_same_everywhere
    assert not offers_of(service(externalTrafficPolicy="Local"), [plain])[0].is_same_everywhere


def test_a_health_check_counts_the_ready_endpoints_of_the_node_once() -> None:
    wanted = service(healthCheckNodePort=31000, externalTrafficPolicy="Local", ports=[{"port": 80}, {"port": 81}])
    endpoints = [
        endpoint("10.244.1.1", node="a"),
        endpoint("10.244.1.2", TERMINATING, node="a"),
        endpoint("10.244.1.3", node="b"),
    ]
    offers = offers_of(wanted, [slice_of(endpoints)])
    assert health_check(wanted, offers, A) == HealthCheck(31000, 1)
    assert health_check(wanted, offers, C) == HealthCheck(31000, 0)
    assert health_check(service(), offers, A) is None


endpoints = st.builds(Endpoint, st.ip_addresses(v=4), st.integers(1, 65535))
pool = st.lists(endpoints, max_size=12, unique=True)


@given(pool, pool, st.data())
def test_endpoints_that_stay_keep_their_slots_as_far_as_there_are_slots(
    before: list[Endpoint], others: list[Endpoint], data: st.DataObject
) -> None:
    staying = data.draw(st.sets(st.sampled_from(before))) if before else set()
    wanted = staying | set(others)
    after = arrange(tuple(before), wanted)
    assert sorted(after) == sorted(wanted)
    for slot, each in enumerate(before[: len(after)]):
        assert after[slot] == each or each not in wanted
