"""Rules as kube-proxy's iptables mode makes them, as text. Names and rules are those of kube-proxy's own tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from testbed.proxy.iptables_rules import Chain, rules
from testbed.proxy.iptables_state import Wanted, change, differences, is_deserted, load, parse, script, teardown
from testbed.proxy.iptables_table import last_rules
from testbed.proxy.virtualport import Endpoint, VirtualPort
from tests.unit.proxy.kubeproxy_services import (
    CLUSTER_IP,
    GUARDED,
    HERE,
    LOCAL_POLICY,
    NO_ENDPOINTS,
    TWO_ENDPOINTS,
    svc,
)


def rendered(port: VirtualPort, *, is_large: bool = False) -> list[str]:
    """As iptables-save would print them, dispatching chains last."""
    found = rules(port, HERE, is_large=is_large)
    own = [f"-A {chain.name} {rule}" for chain, some in found.chains.items() for rule in some]
    return own + sorted(f"-t {chain.table} -A {chain.name} {rule}" for chain, rule in found.dispatched)


def test_a_cluster_ip() -> None:
    assert rendered(CLUSTER_IP) == [
        '-A KUBE-SEP-SXIVWICOYRO3J4NJ -s 10.180.0.1/32 -m comment --comment "ns1/svc1:p80" -j KUBE-MARK-MASQ',
        '-A KUBE-SEP-SXIVWICOYRO3J4NJ -p tcp -m comment --comment "ns1/svc1:p80" '
        "-j DNAT --to-destination 10.180.0.1:80",
        "-A KUBE-SVC-XPGD46QRK7WJZT7O ! -s 10.0.0.0/8 -d 172.30.0.41/32 -p tcp "
        '-m comment --comment "ns1/svc1:p80 cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ',
        '-A KUBE-SVC-XPGD46QRK7WJZT7O -m comment --comment "ns1/svc1:p80 -> 10.180.0.1:80" '
        "-j KUBE-SEP-SXIVWICOYRO3J4NJ",
        "-t nat -A KUBE-SERVICES -d 172.30.0.41/32 -p tcp "
        '-m comment --comment "ns1/svc1:p80 cluster IP" -m tcp --dport 80 -j KUBE-SVC-XPGD46QRK7WJZT7O',
    ]


def test_endpoints_are_chosen_by_chance_each_as_likely_as_the_others() -> None:
    chances = [
        line.split()[-3:] for line in rendered(svc(4, 4, 5, 6)) if line.startswith("-A KUBE-SVC") and "->" in line
    ]
    assert [chance for chance, *_ in chances] == ["0.33333333349", "0.50000000000", '10.180.0.6:80"']


def test_policy_local_without_local_endpoints_serves_the_cluster_alone() -> None:
    external = "-A KUBE-EXT-GNZBNJ2PO5MGZ6GT"
    assert [line for line in rendered(LOCAL_POLICY) if line.startswith(external)] == [
        f'{external} -s 10.0.0.0/8 -m comment --comment "pod traffic for ns2/svc2:p80 external destinations" '
        "-j KUBE-SVC-GNZBNJ2PO5MGZ6GT",
        f'{external} -m comment --comment "masquerade LOCAL traffic for ns2/svc2:p80 external destinations" '
        "-m addrtype --src-type LOCAL -j KUBE-MARK-MASQ",
        f'{external} -m comment --comment "route LOCAL traffic for ns2/svc2:p80 external destinations" '
        "-m addrtype --src-type LOCAL -j KUBE-SVC-GNZBNJ2PO5MGZ6GT",
    ]
    why = '-m comment --comment "ns2/svc2:p80 has no local endpoints"'
    assert [line for line in rendered(LOCAL_POLICY) if "-t filter" in line] == [
        f"-t filter -A KUBE-EXTERNAL-SERVICES -d 1.2.3.4/32 -p tcp {why} -m tcp --dport 80 -j DROP",
        f"-t filter -A KUBE-EXTERNAL-SERVICES -d 192.168.99.22/32 -p tcp {why} -m tcp --dport 80 -j DROP",
        f"-t filter -A KUBE-EXTERNAL-SERVICES -p tcp {why} -m addrtype --dst-type LOCAL -m tcp --dport 3001 -j DROP",
    ]


def test_affinity_and_source_ranges() -> None:
    lines = rendered(GUARDED)
    endpoint, firewall = "KUBE-SEP-I77PXRDZVX7PMWMN", "KUBE-FW-NUKIZ6OKUXPJNT4C"
    remembered = f"--name {endpoint} --mask 255.255.255.255 --rsource"
    title = '-m comment --comment "ns5/svc5:p80'
    assert f'-A {endpoint} -p tcp {title}" -m recent --set {remembered} -j DNAT --to-destination 10.180.0.3:80' in lines
    assert (
        f'-A KUBE-SVC-NUKIZ6OKUXPJNT4C {title} -> 10.180.0.3:80" '
        f"-m recent --rcheck --seconds 10800 --reap {remembered} -j {endpoint}"
    ) in lines
    # The node is in a range, so what it sends to the address, and under it, may come in too.
    assert [line for line in lines if line.startswith(f"-A {firewall}")] == [
        f'-A {firewall} -s {source} {title} loadbalancer IP" -j KUBE-EXT-NUKIZ6OKUXPJNT4C'
        for source in ("203.0.113.0/25", "192.168.0.0/24", "5.6.7.8/32")
    ]
    assert (
        f'-t filter -A KUBE-PROXY-FIREWALL -d 5.6.7.8/32 -p tcp {title} traffic not accepted by {firewall}" '
        "-m tcp --dport 80 -j DROP"
    ) in lines


def test_no_endpoints_are_refused() -> None:
    why = '-m comment --comment "ns6/svc6:p80 has no endpoints"'
    assert rendered(NO_ENDPOINTS) == [
        f"-t filter -A KUBE-EXTERNAL-SERVICES -p tcp {why} -m addrtype --dst-type LOCAL -m tcp --dport 3006 "
        "-j REJECT --reject-with tcp-reset",
        f"-t filter -A KUBE-SERVICES -d 172.30.0.46/32 -p tcp {why} -m tcp --dport 80 "
        "-j REJECT --reject-with tcp-reset",
    ]
    udp = rendered(replace(NO_ENDPOINTS, protocol="udp", node_port=0))
    assert udp[0].endswith("-j REJECT --reject-with icmp-port-unreachable")


def test_a_large_cluster_has_no_comments_in_the_chains_of_its_services() -> None:
    for port in (CLUSTER_IP, LOCAL_POLICY, GUARDED):
        told, untold = rendered(port), rendered(port, is_large=True)
        assert [line.startswith("-t") for line in untold if "--comment" in line] == [True] * len(
            [line for line in told if line.startswith("-t")]
        )
        assert not any("  " in line for line in told + untold)


def test_the_chain_of_all_services_ends_with_the_way_to_node_ports() -> None:
    why = '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"'
    everywhere = f"! -d 127.0.0.0/8 {why} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    named = replace(HERE, node_port_addresses=(IPv4Network("192.168.0.0/24"),))
    assert last_rules(HERE, []) == (everywhere,)
    assert last_rules(replace(HERE, node_port_addresses=(IPv4Network("0.0.0.0/0"),)), []) == (everywhere,)
    assert last_rules(named, [IPv4Address("192.168.0.2")]) == (f"-d 192.168.0.2/32 {why} -j KUBE-NODEPORTS",)


def test_a_change_of_an_endpoint_is_its_chains_and_none_of_other_services() -> None:
    before = rules(TWO_ENDPOINTS, HERE, is_large=True)
    after = rules(
        replace(TWO_ENDPOINTS, cluster=(*TWO_ENDPOINTS.cluster[:1], Endpoint(IPv4Address("10.180.0.6"), 80))),
        HERE,
        is_large=True,
    )
    lines = script(change(before, after)).splitlines()
    new = next(line.split()[1] for line in lines if "10.180.0.6:80" in line)
    assert lines == [
        "*nat",
        f":{new} - [0:0]",
        f"-A {new} -s 10.180.0.6/32 -j KUBE-MARK-MASQ",
        f"-A {new} -p tcp -j DNAT --to-destination 10.180.0.6:80",
        ":KUBE-SVC-4SW47YFZTEDKD3PK - [0:0]",
        "-A KUBE-SVC-4SW47YFZTEDKD3PK ! -s 10.0.0.0/8 -d 172.30.0.44/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ",
        "-A KUBE-SVC-4SW47YFZTEDKD3PK -m statistic --mode random --probability 0.50000000000 "
        "-j KUBE-SEP-UKSFD7AGPMPPLUHC",
        f"-A KUBE-SVC-4SW47YFZTEDKD3PK -j {new}",
        ":KUBE-SEP-C6EBXVWJJZMIWKLZ - [0:0]",
        "-X KUBE-SEP-C6EBXVWJJZMIWKLZ",
        "COMMIT",
    ]


def test_a_service_that_loses_its_last_endpoint_is_refused_before_it_is_forgotten() -> None:
    lines = script(change(rules(CLUSTER_IP, HERE, is_large=True), rules(svc(1), HERE, is_large=True))).splitlines()
    assert [line for line in lines if line[0] == "*"] == ["*filter", "*nat"]
    assert lines[1].startswith("-I KUBE-SERVICES 1 -d 172.30.0.41/32")
    assert lines[4].startswith("-D KUBE-SERVICES -d 172.30.0.41/32")
    assert [line for line in lines if line.startswith("-X")] == [
        "-X KUBE-SEP-SXIVWICOYRO3J4NJ",
        "-X KUBE-SVC-XPGD46QRK7WJZT7O",
    ]


def test_nothing_is_written_where_all_is_as_it_should_be() -> None:
    wanted = Wanted(rules(GUARDED, HERE, is_large=False), last_rules(HERE, []))
    steps = list(load({}, wanted))
    inserted = [line for step in steps for line in step.lines if line.startswith("-I")]
    have = {
        Chain(step.table, step.lines[0][1:].split()[0]): [line.split(" ", 2)[2] for line in step.lines[1:]]
        for step in steps
        if step.lines[0][0] == ":"
    }
    for step in steps:
        for line in step.lines:
            verb, name, rule = (*line.split(" ", 2), "", "")[:3]
            if verb == "-I":
                have.setdefault(Chain(step.table, name), []).insert(0, rule.removeprefix("1 "))
            elif verb == "-A" and step.lines[0] == line:
                have[Chain(step.table, name)].append(rule)
    assert inserted
    assert list(load(have, wanted)) == []
    assert differences(have, wanted) == []
    assert Counter(line for step in teardown(have) for line in step.lines if line.startswith("-X")).total() == sum(
        chain.name.startswith("KUBE-") for chain in have
    )


def test_a_table_is_deserted_where_only_kube_proxy_has_something_in_it() -> None:
    ours = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n[1:60] -A PREROUTING -j KUBE-SERVICES\nCOMMIT\n"
    assert parse([ours]) == {Chain("nat", "PREROUTING"): ["-j KUBE-SERVICES"], Chain("nat", "KUBE-SERVICES"): []}
    assert is_deserted(ours)
    assert not is_deserted(ours.replace("ACCEPT", "DROP"))
    assert not is_deserted(ours.replace("COMMIT", ":MINE - [0:0]\nCOMMIT"))
    assert not is_deserted(ours.replace("COMMIT", "-A PREROUTING -j ACCEPT\nCOMMIT"))
