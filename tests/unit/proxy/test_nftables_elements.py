"""What virtual ports put into the maps, and that a change is correct from the first statement to the last."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from testbed.api.objects import Key
from testbed.proxy import nftables_elements as nftables
from testbed.proxy import nftables_rules
from testbed.proxy.virtualport import Endpoint, VirtualPort
from tests.unit.proxy.nftables_maps import Maps

NODE = IPv4Address("198.18.0.2")
TABLE = nftables_rules.TABLE
NEAR = [Endpoint(IPv4Address(f"10.244.1.{at}"), 8080) for at in range(2, 5)]
FAR = [Endpoint(IPv4Address(f"10.244.2.{at}"), 8080) for at in range(2, 6)]


def port(number: int = 1, **more: object) -> VirtualPort:
    given = {"cluster": (NEAR[0], FAR[0]), "local": (NEAR[0],), "has_endpoints": True, **more}
    return VirtualPort(Key("default", f"s{number}"), "", "tcp", IPv4Address("10.96.0.0") + number, 80, **given)  # type: ignore[arg-type]


def elements(*ports: VirtualPort) -> dict[tuple[str, str], str]:
    return nftables.elements(ports, [NODE])


def maps(*ports: VirtualPort) -> Maps:
    found = Maps()
    for statement in nftables.change(TABLE, {}, elements(*ports)):
        found.load(statement)
    return found


def test_a_cluster_ip_costs_an_element_for_itself_its_port_and_each_endpoint() -> None:
    assert elements(port()) == {
        ("cluster-ips", "10.96.0.1"): "",
        ("services", "10.96.0.1 . tcp . 80"): "goto lb-2",
        ("endpoints", "10.96.0.1 . tcp . 80 . 0"): "10.244.1.2 . 8080",
        ("endpoints", "10.96.0.1 . tcp . 80 . 1"): "10.244.2.2 . 8080",
    }


def test_only_what_is_to_be_dropped_needs_an_element_where_there_is_no_endpoint() -> None:
    assert "services" not in maps(port(cluster=(), local=(), has_endpoints=False)).elements
    dropped = maps(port(is_internal_local=True, local=()))
    assert dropped.elements["services"] == {"10.96.0.1 . tcp . 80": "drop"}


def test_policy_local_shares_out_between_local_endpoints_only_what_comes_from_outside() -> None:
    found = maps(port(is_external_local=True, node_port=30000))
    assert found.reached("198.18.0.2 . tcp . 30000") == {"10.244.1.2 . 8080", "10.244.2.2 . 8080"}
    assert found.reached("198.18.0.2 . tcp . 30000", outside=True) == {"10.244.1.2 . 8080"}


def test_source_ranges_guard_the_load_balancers_address_and_no_other() -> None:
    balanced, external = IPv4Address("203.0.113.200"), IPv4Address("203.0.113.201")
    ranges = (IPv4Network("192.0.2.0/24"), IPv4Network("192.0.2.1/32"))
    guarded = port(load_balancer_ips=(balanced,), external_ips=(external,), source_ranges=ranges, node_port=30000)
    found = maps(guarded).elements
    assert set(found["guarded"]) == {f"{balanced} . tcp . 80"}
    # One inside the other: the kernel takes no intervals that overlap.
    assert set(found["allowed-sources"]) == {f"192.0.2.0/24 . {balanced} . tcp . 80"}
    assert found["services"][f"{external} . tcp . 80"] == "goto lb-2"


def test_what_is_masqueraded_stands_in_the_map_of_public_addresses() -> None:
    assert maps(port(node_port=30000)).elements["public"] == {"198.18.0.2 . tcp . 30000": "goto masq"}
    local = maps(port(node_port=30000, is_external_local=True)).elements
    assert local["public"] == {"198.18.0.2 . tcp . 30000": "goto masq-own"}


def test_a_service_with_affinity_is_the_same_to_its_clients_at_every_address() -> None:
    found = maps(port(affinity_s=10800, node_port=30000)).elements
    assert len(found["sticky-services"]) == 2
    assert len(set(found["sticky-services"].values())) == 1
    assert set(found["timeouts"].values()) == {"jump remember-10800"}


def test_a_changed_timeout_is_another_service_to_clients() -> None:
    assert nftables.client_mark(port(affinity_s=10)) != nftables.client_mark(port(affinity_s=20))


def test_the_number_of_an_endpoint_does_not_depend_on_the_others() -> None:
    assert nftables.endpoint_marks(FAR)[FAR[2]] == nftables.endpoint_marks(FAR[2:3])[FAR[2]]


def test_endpoints_that_share_an_address_have_numbers_of_their_own() -> None:
    twins = [FAR[0], FAR[0]._replace(port=8081)]
    assert len(set(nftables.endpoint_marks(twins).values())) == 2


def test_chains_are_named_by_the_elements_that_lead_to_them() -> None:
    assert nftables.chains_of(elements(port())) == {"lb-2"}
    sticky = port(affinity_s=10, is_external_local=True, node_port=30000)
    assert nftables.chains_of(elements(sticky)) == {"pick-2", "pick-local-1", "remember-10"}


def test_services_cost_elements_and_no_chain() -> None:
    assert nftables.chains_of(elements(*(port(number) for number in range(1, 100)))) == {"lb-2"}


def test_nothing_changed_is_no_statement() -> None:
    assert nftables.change(TABLE, elements(port()), elements(port())) == []


def test_a_duration_is_written_as_nft_prints_it() -> None:
    assert [nftables_rules.duration(each) for each in (1, 60, 10800, 86399)] == ["1s", "1m", "3h", "23h59m59s"]


def _lists(endpoints: list[Endpoint]) -> st.SearchStrategy[tuple[Endpoint, ...]]:
    return st.lists(st.sampled_from(endpoints), unique=True).map(tuple)


PORTS = st.builds(
    port,
    number=st.integers(1, 3),
    cluster=_lists(NEAR + FAR),
    local=_lists(NEAR),
    has_endpoints=st.booleans(),
    node_port=st.sampled_from([0, 30000, 30001]),
    load_balancer_ips=st.sampled_from([(), (IPv4Address("203.0.113.200"),)]),
    source_ranges=st.sampled_from([(), (IPv4Network("192.0.2.0/24"),), (IPv4Network("0.0.0.0/0"),)]),
    affinity_s=st.sampled_from([0, 10, 10800]),
    is_internal_local=st.booleans(),
    is_external_local=st.booleans(),
)


@given(st.lists(PORTS, max_size=1), st.lists(PORTS, max_size=1))
def test_a_change_leaves_nothing_dangling_on_the_way_and_ends_where_a_load_would(
    before: list[VirtualPort], after: list[VirtualPort]
) -> None:
    found = maps(*before)
    for statement in nftables.change(TABLE, elements(*before), elements(*after)):
        found.load(statement)
        assert found.dangling() == []
    assert {name: each for name, each in found.elements.items() if each} == maps(*after).elements
