"""What virtual ports are in mode ipvs: virtual servers, bound addresses, elements of its rules."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.api.objects import Key
from testbed.kernel.ipvs_wire import Real, Server
from testbed.proxy.ipvs_rules import Name
from testbed.proxy.ipvs_servers import Node, Serving, addresses, elements, facts, servers
from testbed.proxy.virtualport import Endpoint, Here, VirtualPort

OWN = IPv4Address("198.18.0.10")
VIP, PUBLIC = IPv4Address("10.96.0.1"), IPv4Address("198.19.0.1")
NEAR, FAR = Endpoint(IPv4Address("10.244.1.2"), 8080), Endpoint(IPv4Address("10.244.2.2"), 8080)
HERE = Here("a", OWN, IPv4Network("10.244.1.0/24"), IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/16"))
NODE = Node(HERE, [OWN])


def port(**more: object) -> VirtualPort:
    given = {"cluster": (NEAR, FAR), "local": (NEAR,), "has_endpoints": True, **more}
    return VirtualPort(Key("default", "web"), "", "tcp", VIP, 80, **given)  # type: ignore[arg-type]


def test_a_cluster_ip_is_a_virtual_server_a_bound_address_and_three_elements() -> None:
    assert facts([port()], NODE) == {
        Server(VIP, "tcp", 80): Serving(0, frozenset({Real(*NEAR), Real(*FAR)})),
        VIP: "",
        Name("service-ips", "10.96.0.1"): "",
        Name("ports", "10.96.0.1 . tcp . 80"): "",
        Name("sources", "10.96.0.1 . tcp . 80"): "goto masq-foreign",
    }


def test_endpoints_cost_no_elements() -> None:
    assert elements(facts([port()], NODE)) == elements(facts([port(cluster=(FAR,))], NODE))


def test_without_endpoints_there_is_no_virtual_server_and_the_rules_refuse() -> None:
    found = facts([port(cluster=(), local=(), has_endpoints=False)], NODE)
    assert servers(found) == {}
    assert addresses(found) == {VIP}
    assert elements(found)[Name("refusals", "10.96.0.1 . tcp . 80")] == "goto refuse"


def test_with_endpoints_on_other_nodes_only_policy_local_drops() -> None:
    found = facts([port(local=(), is_external_local=True, load_balancer_ips=(PUBLIC,))], NODE)
    assert list(servers(found)) == [Server(VIP, "tcp", 80)]
    assert elements(found)[Name("refusals", "198.19.0.1 . tcp . 80")] == "drop"


def test_a_node_port_is_served_at_the_nodes_own_addresses_which_are_not_bound() -> None:
    found = facts([port(node_port=30000)], NODE)
    assert Server(OWN, "tcp", 30000) in servers(found)
    assert addresses(found) == {VIP}
    assert Name("service-ips", str(OWN)) not in found


@pytest.mark.parametrize(("is_local", "reals", "chain"), [(False, {NEAR, FAR}, "masq"), (True, {NEAR}, "masq-own")])
def test_traffic_policy_chooses_endpoints_and_masquerading(is_local: bool, reals: set[Endpoint], chain: str) -> None:
    found = facts([port(external_ips=(PUBLIC,), is_external_local=is_local)], NODE)
    assert servers(found)[Server(PUBLIC, "tcp", 80)].reals == {Real(*each) for each in reals}
    assert elements(found)[Name("sources", "198.19.0.1 . tcp . 80")] == f"goto {chain}"


def test_source_ranges_guard_the_load_balancers_address_alone_and_never_overlap() -> None:
    ranges = (IPv4Network("192.0.2.0/24"), IPv4Network("192.0.2.7/32"), IPv4Network("203.0.113.9/32"))
    guarded = port(load_balancer_ips=(PUBLIC,), external_ips=(IPv4Address("198.19.0.2"),), source_ranges=ranges)
    found = elements(facts([guarded], NODE))
    key = "198.19.0.1 . tcp . 80"
    assert {name.key for name in found if name.where == "guarded"} == {key}
    assert {name.key for name in found if name.where == "allowed-sources"} == {
        f"192.0.2.0/24 . {key}",
        f"203.0.113.9 . {key}",
    }


def test_a_node_in_range_may_come_from_the_address_that_it_asks() -> None:
    found = elements(facts([port(load_balancer_ips=(PUBLIC,), source_ranges=(IPv4Network("198.18.0.0/16"),))], NODE))
    assert Name("allowed-sources", "198.19.0.1 . 198.19.0.1 . tcp . 80") in found


def test_affinity_is_the_virtual_servers_persistence() -> None:
    assert servers(facts([port(affinity_s=300)], NODE))[Server(VIP, "tcp", 80)].persistence_s == 300
