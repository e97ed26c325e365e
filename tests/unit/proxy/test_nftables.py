"""The rules of virtual ports, followed packet by packet."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.proxy import nftables
from testbed.proxy.servicemap import Endpoint, VirtualPort
from tests.unit.proxy.ruleset import Outcome, Ruleset

POD_CIDR = IPv4Network("10.244.1.0/24")


def port(address: str, protocol: str, number: int, *endpoints: str) -> VirtualPort:
    parsed = tuple(
        Endpoint(IPv4Address(host), int(port)) for host, _, port in (each.partition(":") for each in endpoints)
    )
    return VirtualPort(IPv4Address(address), protocol, number, parsed, frozenset(parsed))


CLUSTER = [
    port("10.96.0.10", "tcp", 80, "10.244.1.2:8080", "10.244.2.2:8080"),
    port("10.96.0.10", "udp", 80, "10.244.2.3:8081"),
    port("10.96.0.10", "tcp", 443, "10.244.1.2:8443"),
    port("10.96.0.11", "tcp", 80),
]


def loaded(*ports: VirtualPort) -> Ruleset:
    ruleset = Ruleset()
    ruleset.load(nftables.render(ports, POD_CIDR))
    return ruleset


@pytest.mark.parametrize(
    ("source", "to", "outcome"),
    [
        pytest.param(
            "10.244.1.9", ("10.96.0.10", "tcp", 80), Outcome(("10.244.1.2:8080", "10.244.2.2:8080")),
            id="pod to cluster IP",
        ),
        pytest.param("10.244.1.9", ("10.96.0.10", "udp", 80), Outcome(("10.244.2.3:8081",)), id="the same over UDP"),
        pytest.param("10.244.1.9", ("10.96.0.10", "tcp", 443), Outcome(("10.244.1.2:8443",)), id="its other port"),
        pytest.param("198.18.0.10", ("10.96.0.10", "tcp", 443), Outcome(("10.244.1.2:8443",)), id="node to cluster IP"),
        pytest.param(
            "10.244.1.2", ("10.96.0.10", "tcp", 80),
            Outcome(("10.244.1.2:8080", "10.244.2.2:8080"), masqueraded=("10.244.1.2:8080",)),
            id="pod to its own Service: masqueraded where it meets itself",
        ),
        pytest.param("10.244.1.9", ("10.96.0.11", "tcp", 80), Outcome(refused=True), id="no endpoints"),
        pytest.param("10.244.1.9", ("10.96.0.10", "tcp", 81), Outcome(refused=True), id="undefined port"),
        pytest.param("10.244.1.9", ("10.96.0.10", "udp", 443), Outcome(refused=True), id="undefined protocol"),
        pytest.param("10.244.1.9", ("10.96.0.99", "tcp", 80), Outcome(), id="an address of no Service"),
        pytest.param("10.244.1.9", ("10.244.2.2", "tcp", 8080), Outcome(), id="pod to pod"),
    ],
)  # fmt: skip
def test_packet_flow(source: str, to: tuple[str, str, int], outcome: Outcome) -> None:
    assert loaded(*CLUSTER).connect(source, *to) == outcome


def test_services_cost_elements_and_no_rule() -> None:
    many = [port(f"10.96.1.{at}", "tcp", 80, "10.244.1.2:80") for at in range(100)]
    one, hundred = nftables.render(many[:1], POD_CIDR), nftables.render(many, POD_CIDR)
    assert one.count("rule") == hundred.count("rule")
    assert one.count("chain") == hundred.count("chain")


def test_there_are_chains_up_to_a_power_of_two_that_suffices() -> None:
    crowd = [f"10.244.2.{at}:80" for at in range(17)]
    assert nftables.capacity(nftables.elements([port("10.96.0.10", "tcp", 80, *crowd)])) == 32
    assert nftables.capacity(nftables.elements([port("10.96.0.10", "tcp", 80, *crowd[:16])])) == 16
    assert nftables.capacity({}) == 16


def test_every_chain_falls_back_to_the_first_slot() -> None:
    script = nftables.render(CLUSTER, POD_CIDR)
    for count in (2, 16):
        rules = [line for line in script.splitlines() if f" lb-{count} " in line and "rule" in line]
        assert [f"mod {count} " in rules[0], rules[1].endswith(" goto lb-1"), len(rules)] == [True, True, 2]
    assert "goto lb-1" not in next(line for line in script.splitlines() if "rule" in line and " lb-1 " in line)


SERVICES = st.dictionaries(
    st.tuples(st.sampled_from(["10.96.0.1", "10.96.0.2", "10.96.0.3"]), st.sampled_from(["tcp", "udp"])),
    st.lists(st.sampled_from([f"10.244.1.{at}:80" for at in range(2, 8)]), max_size=5, unique=True),
    max_size=5,
)


@given(SERVICES, SERVICES)
def test_a_change_loaded_statement_by_statement_is_correct_after_each_and_ends_where_a_full_load_would(
    before: dict[tuple[str, str], list[str]], after: dict[tuple[str, str], list[str]]
) -> None:
    old = [port(address, protocol, 80, *endpoints) for (address, protocol), endpoints in before.items()]
    new = [port(address, protocol, 80, *endpoints) for (address, protocol), endpoints in after.items()]
    ruleset = loaded(*old)
    for statement in nftables.change(nftables.TABLE, nftables.elements(old), nftables.elements(new)):
        ruleset.load(statement)
        assert ruleset.is_consistent()
    assert {name: elements for name, elements in ruleset.maps.items() if elements} == loaded(*new).maps


def test_nothing_changed_is_no_statement() -> None:
    wanted = nftables.elements(CLUSTER)
    assert nftables.change(nftables.TABLE, wanted, wanted) == []
