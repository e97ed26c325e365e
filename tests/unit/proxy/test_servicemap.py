"""Which endpoints stand for a Service."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.api.objects import Object
from testbed.proxy.servicemap import Endpoint, VirtualPort, arrange, service_ports, virtual_ports
from tests.unit.proxy.objects import READY, TERMINATING, UNREADY, endpoint, service, slice_of


def targets(ports: tuple[VirtualPort, ...]) -> list[tuple[str, int, list[str]]]:
    return [(p.protocol, p.port, sorted(f"{e.address}:{e.port}" for e in p.endpoints)) for p in ports]


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
    assert [str(e.address) for e in port.endpoints] == chosen
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
    assert len(port.endpoints) == 1


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


def test_a_slice_of_another_service_family_or_port_contributes_nothing() -> None:
    slices = [
        slice_of([endpoint("10.244.1.2")], service="other"),
        slice_of([endpoint("10.244.1.2")], namespace="other"),
        slice_of([endpoint("fd00::2")], addressType="IPv6"),
        slice_of([endpoint("10.244.1.2")], ports=[{"name": "other", "port": 80}]),
    ]
    [port] = virtual_ports([service()], slices)
    assert port.endpoints == ()


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
