"""Rules in the layout of kube-proxy's nftables mode, as text. Names and rules are those of kube-proxy's own tests."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from testbed.api.objects import Key
from testbed.proxy.claims import Claims
from testbed.proxy.kubeproxy_listing import Listing, differences, parse
from testbed.proxy.kubeproxy_rules import Element, Objects, claims, node_port_ips, objects
from testbed.proxy.kubeproxy_script import assemble, change
from testbed.proxy.kubeproxy_table import hooks, skeleton
from testbed.proxy.virtualport import VirtualPort
from tests.unit.proxy.kubeproxy_services import (
    CLUSTER_IP,
    GUARDED,
    HERE,
    LOCAL_POLICY,
    NO_ENDPOINTS,
    TWO_ENDPOINTS,
    svc,
)


def rendered(port: VirtualPort) -> list[str]:
    """Chains and elements, a line each."""
    found = objects(port, HERE)
    chains = [f"{name}: {rule}" for name, rules in found.chains.items() for rule in rules]
    elements = {**found.elements, **claims(port, HERE)}
    return chains + [f"{where} {key} {value}".strip() for (where, key), value in elements.items()]


def test_a_cluster_ip() -> None:
    assert rendered(CLUSTER_IP) == [
        "service-ULMVA6XW-ns1/svc1/tcp/p80: "
        "meta l4proto tcp dnat ip to numgen random mod 1 map { 0 : 10.180.0.1 . 80 }",
        "cluster-ips 172.30.0.41",
        "service-ips 172.30.0.41 . tcp . 80 goto service-ULMVA6XW-ns1/svc1/tcp/p80",
        "hairpin-connections 10.180.0.1 . 10.180.0.1 . tcp . 80",
    ]


def test_an_external_address_is_masqueraded_and_shares_the_endpoints() -> None:
    assert rendered(TWO_ENDPOINTS)[:3] == [
        "service-LAUZTJTB-ns4/svc4/tcp/p80: "
        "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.180.0.4 . 80, 1 : 10.180.0.5 . 80 }",
        "external-LAUZTJTB-ns4/svc4/tcp/p80: meta mark set meta mark | 0x00004000",
        "external-LAUZTJTB-ns4/svc4/tcp/p80: goto service-LAUZTJTB-ns4/svc4/tcp/p80",
    ]


def test_policy_local_without_local_endpoints_serves_the_cluster_alone() -> None:
    service, external = "service-42NFTM6N-ns2/svc2/tcp/p80", "external-42NFTM6N-ns2/svc2/tcp/p80"
    assert rendered(LOCAL_POLICY) == [
        f"{service}: meta l4proto tcp dnat ip to numgen random mod 1 map {{ 0 : 10.180.0.18 . 80 }}",
        f'{external}: ip saddr 10.0.0.0/8 goto {service} comment "short-circuit pod traffic"',
        f'{external}: fib saddr type local meta mark set meta mark | 0x00004000 comment "masquerade local traffic"',
        f'{external}: fib saddr type local goto {service} comment "short-circuit local traffic"',
        "cluster-ips 172.30.0.42",
        f"service-ips 172.30.0.42 . tcp . 80 goto {service}",
        f"service-nodeports tcp . 3001 goto {external}",
        "no-endpoint-nodeports tcp . 3001 drop",
        f"service-ips 192.168.99.22 . tcp . 80 goto {external}",
        "no-endpoint-services 192.168.99.22 . tcp . 80 drop",
        f"service-ips 1.2.3.4 . tcp . 80 goto {external}",
        "no-endpoint-services 1.2.3.4 . tcp . 80 drop",
    ]


def test_affinity_and_source_ranges() -> None:
    lines = rendered(GUARDED)
    service = "service-HVFWP5L3-ns5/svc5/tcp/p80"
    base = next(iter(objects(GUARDED, HERE).sets)).removeprefix("affinity-")
    assert lines[:5] == [
        f"endpoint-{base}: update @affinity-{base} {{ ip saddr }}",
        f"endpoint-{base}: meta l4proto tcp dnat to 10.180.0.3:80",
        f"{service}: ip saddr @affinity-{base} goto endpoint-{base}",
        f"{service}: numgen random mod 1 vmap {{ 0 : goto endpoint-{base} }}",
        f"{service.replace('service', 'external')}: meta mark set meta mark | 0x00004000",
    ]
    firewall = service.replace("service", "firewall")
    # The node is in a range, so what it sends to the address, and under it, may come in too.
    assert f"{firewall}: ip saddr != {{ 5.6.7.8, 192.168.0.0/24, 203.0.113.0/25 }} drop" in lines
    assert f"firewall-ips 5.6.7.8 . tcp . 80 goto {firewall}" in lines
    assert objects(GUARDED, HERE).sets == {f"affinity-{base}": 10800}


def test_no_endpoints_are_refused_and_nothing_leads_anywhere() -> None:
    assert rendered(NO_ENDPOINTS) == [
        "cluster-ips 172.30.0.46",
        "no-endpoint-services 172.30.0.46 . tcp . 80 goto reject-chain",
        "no-endpoint-nodeports tcp . 3006 goto reject-chain",
    ]


def test_sources_are_written_as_nft_lists_them() -> None:
    def sources(*ranges: str) -> str:
        port = replace(GUARDED, source_ranges=tuple(map(IPv4Network, ranges)))
        rules = next(rules for name, rules in objects(port, HERE).chains.items() if name.startswith("firewall-"))
        return rules[0].removeprefix("ip saddr != ").removesuffix(" drop")

    assert sources("10.0.0.0/24") == "10.0.0.0/24"
    assert sources("10.0.0.1/32") == "10.0.0.1"
    assert sources("1.2.3.5/32", "1.2.3.4/32") == "{ 1.2.3.4, 1.2.3.5 }"
    assert sources("10.0.0.0/24", "10.0.1.0/25") == "{ 10.0.0.0-10.0.1.127 }"
    assert sources("10.0.0.0/24", "10.0.0.0/25", "10.1.0.0/16") == "{ 10.0.0.0/24, 10.1.0.0/16 }"


def test_node_ports_are_served_at_named_addresses_or_at_all() -> None:
    address = IPv4Address("192.168.0.2")
    assert node_port_ips(HERE, [address]) == {Element("nodeport-ips", "192.168.0.2"): ""}
    everywhere = replace(HERE, node_port_addresses=(IPv4Network("0.0.0.0/0"),))
    assert node_port_ips(everywhere, [address]) == {}
    assert "fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto" in skeleton("kube-proxy", everywhere)


def test_a_change_flushes_what_it_rewrites_and_touches_no_more() -> None:
    before, after = objects(TWO_ENDPOINTS, HERE), objects(svc(4, 4, 6, external_ips=TWO_ENDPOINTS.external_ips), HERE)
    assert change("kube-proxy", before, after) == (
        "flush chain ip kube-proxy service-LAUZTJTB-ns4/svc4/tcp/p80\n"
        "table ip kube-proxy {\n"
        "\tchain service-LAUZTJTB-ns4/svc4/tcp/p80 {\n"
        "\t\tmeta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.180.0.4 . 80, 1 : 10.180.0.6 . 80 }\n"
        "\t}\n"
        "}\n"
    )
    assert change("kube-proxy", after, after) == ""


def test_a_service_that_loses_its_last_endpoint_is_refused_in_the_same_transaction() -> None:
    assert change("kube-proxy", objects(CLUSTER_IP, HERE), objects(svc(1), HERE)) == (
        "flush chain ip kube-proxy service-ULMVA6XW-ns1/svc1/tcp/p80\n"
        "delete element ip kube-proxy service-ips { 172.30.0.41 . tcp . 80 }\n"
        "add element ip kube-proxy no-endpoint-services { 172.30.0.41 . tcp . 80 : goto reject-chain }\n"
    )


def test_a_load_is_cut_into_pieces_and_no_chain_is_named_before_it_is_made() -> None:
    wanted = Objects()
    for at in range(1, 90):
        wanted.add(objects(svc(at, *range(1, 40), node_port=3000 + at, affinity_s=10), HERE))
    pieces = list(assemble("kube-proxy", wanted))
    assert len(pieces) > 5
    made: set[str] = set()
    for piece in pieces:
        made |= {name.removeprefix("chain ") for name in parse(piece).rules}
        assert {rule.rpartition("goto ")[2].split()[0] for rule in piece.split("\n") if "goto" in rule} <= made


def test_an_element_that_two_services_claim_goes_to_the_first_by_name_whoever_comes_last() -> None:
    element = Element("service-ips", "192.0.2.1 . tcp . 80")
    first, second = Key("a", "web"), Key("b", "web")
    found: Claims[Element, str] = Claims()
    found.add(second, {element: "goto b"})
    found.add(first, {element: "goto a"})
    assert found.settled() == {element: "goto a"}
    found.remove(first, [element])
    assert found.settled([element]) == {element: "goto b"}
    found.remove(second, [element])
    assert found.settled([element]) == {}


def test_a_listing_is_read_back_and_compared() -> None:
    script = skeleton("kube-proxy", HERE) + hooks("kube-proxy")
    have = parse(
        script.replace(
            '"NodePort traffic"\n',
            '"NodePort traffic"\n\t\telements = { tcp . 30001 : goto a,\n\t\t\t     udp . 30002 : goto b }\n',
        )
    )
    wanted = parse(script)
    wanted.elements["service-nodeports"] = {"tcp . 30001": "goto c"}
    assert differences(have, wanted) == [
        "- element service-nodeports { tcp . 30001 : goto a }",
        "- element service-nodeports { udp . 30002 : goto b }",
        "+ element service-nodeports { tcp . 30001 : goto c }",
    ]
    assert "- chain nat-output { type nat hook output priority -100; policy accept; jump services }" in differences(
        have, Listing()
    )
