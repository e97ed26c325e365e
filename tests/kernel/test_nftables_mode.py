"""The mode nftables against the kernel: large loads, edits by hand, restarts. Where packets go: test_proxy_modes."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from testbed.errors import KernelError
from testbed.kernel.nft import LibNft
from testbed.proxy.nftables import NftablesMode
from testbed.proxy.virtualport import Ports
from tests.kernel.lab import Lab
from tests.kernel.proxy_lab import HERE, NODE, PODS, ProxyLab, both, ports, proxy_lab

SERVED = ports(both(10, "b"), both(11, "bd", node_port=30011), both(21, "bcd", affinity_s=60))


@pytest.fixture
def cluster(lab: Lab) -> Iterator[ProxyLab]:
    with proxy_lab(lab, lambda lab, place: NftablesMode(lab.nft(place), lab.links(place))) as cluster:
        cluster.mode.load(SERVED, HERE)
        yield cluster


def edit(cluster: ProxyLab, script: str) -> None:
    with closing(LibNft(cluster.lab.place(NODE))) as stranger:
        stranger.load(script)


class CrampedNft(LibNft):
    """Refuses large transactions, as the kernel does to a plain user whose socket buffer is small."""

    def load(self, script: str) -> None:
        if len(script) > 30_000:
            raise KernelError("nft: Message too long", errno.EMSGSIZE)
        super().load(script)


def many(count: int, pods: str) -> Ports:
    return ports(*(both(256 + at, pods) for at in range(count)), both(10, pods))


def test_rules_too_large_for_one_transaction_take_over_whole_in_several(cluster: ProxyLab) -> None:
    with closing(CrampedNft(cluster.lab.place(NODE))) as nft:
        mode = NftablesMode(nft, cluster.lab.links(NODE))
        for pods in ("b", "d"):
            mode.load(many(1000, pods), HERE)
            assert cluster.outcome("a", "10.96.0.10", 80) == {pods}
            assert cluster.outcome("a", "10.96.2.1", 80, "udp") == {pods}
            assert nft.list("tables").count("testbed-proxy") == 1


def test_a_change_too_large_for_one_transaction_is_made_in_several(cluster: ProxyLab) -> None:
    with closing(CrampedNft(cluster.lab.place(NODE))) as nft:
        mode = NftablesMode(nft, cluster.lab.links(NODE))
        few, more = many(1, "b"), many(1000, "b")
        mode.load(few, HERE)
        for before, after in ((few, more), (more, few)):
            assert mode.change(before, after, more.keys())
            assert mode.differences(after) == []


def test_a_load_that_was_killed_half_way_leaves_nothing_to_the_next(cluster: ProxyLab) -> None:
    edit(cluster, "add table ip testbed-proxy-2\nadd chain ip testbed-proxy-2 dispatch\n")
    cluster.mode.load(SERVED, HERE)
    assert cluster.mode.differences(SERVED) == []
    assert cluster.outcome("a", "10.96.0.10", 80) == {"b"}


def test_a_number_of_endpoints_that_no_service_had_before_serves_every_protocol(cluster: ProxyLab) -> None:
    after = ports(both(10, "abcd"), both(11, "bd", node_port=30011), both(21, "bcd", affinity_s=60))
    assert cluster.mode.change(SERVED, after, list(after))
    for protocol in ("tcp", "udp"):
        assert cluster.outcome("client", "10.96.0.10", 80, protocol, 60) == {"a~", "b~", "c~", "d~"}


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            "delete element ip {} services {{ 10.96.0.10 . tcp . 80 }}",
            "+ services { 10.96.0.10 . tcp . 80 : goto lb-1 }",
        ),
        ("add element ip {} cluster-ips {{ 10.96.9.9 }}", "- cluster-ips { 10.96.9.9 }"),
        ("add rule ip {} dispatch counter", "- chain dispatch: counter packets 0 bytes 0"),
        ("flush chain ip {} lb-2", "+ chain lb-2: goto lb-1"),
    ],
)
def test_an_edit_by_hand_is_noticed_told_and_healed(cluster: ProxyLab, script: str, told: str) -> None:
    assert not cluster.mode.was_edited()
    edit(cluster, script.format("testbed-proxy"))
    assert cluster.mode.was_edited()
    assert told in cluster.mode.differences(SERVED)
    cluster.mode.load(SERVED, HERE)
    assert not cluster.mode.was_edited()
    assert cluster.mode.differences(SERVED) == []


def test_a_change_to_rules_that_are_gone_asks_for_a_load(cluster: ProxyLab) -> None:
    edit(cluster, "flush ruleset")
    after = {**SERVED, **ports(both(10, "d"))}
    assert not cluster.mode.change(SERVED, after, ports(both(10, "d")).keys())


def test_an_address_that_the_node_gets_later_is_served_too(cluster: ProxyLab) -> None:
    here = replace(HERE, node_port_addresses=(IPv4Network("192.0.2.0/24"),))
    cluster.mode.load(SERVED, here)
    assert not cluster.mode.was_edited()
    links = cluster.lab.links(NODE)
    links.set_addresses("eth0", [*links.addresses("eth0"), IPv4Interface("192.0.2.3/32")])
    assert cluster.mode.was_edited()
    cluster.mode.load(SERVED, here)
    assert cluster.outcome("client", str(IPv4Address("192.0.2.3")), 30011, times=20) == {"b~", "d~"}


def test_an_external_address_that_is_a_cluster_ip_stays_the_cluster_ips(cluster: ProxyLab) -> None:
    after = {**SERVED, **ports(both(12, "d", external_ips=(IPv4Address("10.96.0.10"),)))}
    cluster.mode.load(after, HERE)
    assert cluster.outcome("a", "10.96.0.10", 80, times=6) == {"b"}
    assert cluster.mode.differences(after) == []


def test_the_way_of_a_connection_is_told_in_sentences(cluster: ProxyLab) -> None:
    (plain, _), (sticky, _) = both(11, "bd", node_port=30011), both(21, "bcd", affinity_s=60)
    key = "10.96.0.11 . tcp . 80"
    assert cluster.mode.explain(plain)[:2] == [
        "ClusterIP 10.96.0.11:80/tcp, table testbed-proxy:",
        f"  map services {{ {key} : goto lb-2 }}: one of 2 at random, 10.244.1.3:8080, 10.244.2.2:8080",
    ]
    assert any("this node's address as its source" in line for line in cluster.mode.explain(plain))
    kept = PODS[cluster.ask("a", "10.96.0.21", 80).pod]
    left = "(1m|5[0-9]s([0-9]+ms)?)"
    assert re.fullmatch(f"client 10.244.1.2 keeps {kept} for {left} more", cluster.mode.explain(sticky)[-1])
    edit(cluster, f"delete element ip testbed-proxy endpoints {{ {key} . 0 }}")
    assert "nobody, 10.244.2.2:8080" in cluster.mode.explain(plain)[1]


def test_an_established_connection_survives_loads_and_the_loss_of_its_endpoint(cluster: ProxyLab) -> None:
    with cluster.lab.inside("tb-c-a", lambda: socket.create_connection(("10.96.0.10", 80), 2)) as connection:
        cluster.mode.load(SERVED, HERE)
        after = {**SERVED, **ports(both(10, "d"))}
        assert cluster.mode.change(SERVED, after, ports(both(10, "d")).keys())
        connection.send(b"?")
        assert connection.recv(100).startswith(b"b ")
        cluster.mode.teardown()
