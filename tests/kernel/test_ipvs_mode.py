"""What is mode ipvs' own: connections that drain, before an endpoint goes and before another mode has taken over."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface

import pytest

from testbed.kernel.ipvs import NetlinkIpvs
from testbed.kernel.ipvs_wire import Server
from testbed.proxy.ipvs import DEVICE
from testbed.proxy.mode import Mode
from testbed.waiting import wait_until
from tests.kernel.lab import Lab
from tests.kernel.proxy_lab import HERE, NODE, ProxyLab, both, ports, proxy_lab
from tests.kernel.test_proxy_modes import MAKE, make_ipvs

VIP = "10.96.0.10"
SERVER = Server(IPv4Address(VIP), "tcp", 80)
B, BC, C = (ports(both(10, pods)) for pods in ("b", "bc", "c"))
KEYS = list(B)
DRAINED_S = 30.0


@pytest.fixture
def cluster(lab: Lab) -> Iterator[ProxyLab]:
    """A lab whose mode, ipvs, has loaded nothing."""
    with proxy_lab(lab, make_ipvs) as cluster:
        yield cluster


@pytest.fixture
def ipvs(cluster: ProxyLab) -> NetlinkIpvs:
    """The node's virtual servers."""
    return cluster.lab.ipvs(NODE)


@contextmanager
def connected(cluster: ProxyLab, place: str) -> Iterator[socket.socket]:
    """An established connection to the Service, on which nothing has been said yet."""
    with cluster.lab.inside(place, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as sock:
        sock.settimeout(5)
        sock.connect((VIP, 80))
        yield sock


def answer(sock: socket.socket) -> str:
    sock.send(b"?")
    return sock.recv(100).decode()[0]


def test_an_endpoint_that_goes_keeps_its_connections_and_is_deleted_after_them(
    cluster: ProxyLab, ipvs: NetlinkIpvs
) -> None:
    cluster.mode.load(B, HERE)
    with connected(cluster, "tb-c-a") as sock:
        assert cluster.mode.change(B, C, KEYS)
        assert cluster.mode.change(C, C, [])
        assert {state.weight for state in ipvs.reals(SERVER).values()} == {0, 1}
        assert cluster.outcome("a", VIP, 80, times=5) == {"c"}
        assert cluster.mode.differences(C) == []
        assert answer(sock) == "b"

    def has_gone() -> bool:
        return cluster.mode.change(C, C, []) and len(ipvs.reals(SERVER)) == 1

    wait_until(has_gone, DRAINED_S, "the end of the real server", every_s=0.2)


def test_a_service_that_goes_keeps_its_connections_and_is_refused_to_others(
    cluster: ProxyLab, ipvs: NetlinkIpvs
) -> None:
    cluster.mode.load(B, HERE)
    with connected(cluster, "tb-c-a") as sock:
        assert cluster.mode.change(B, {}, KEYS)
        assert cluster.outcome("a", VIP, 80) == {"refused"}
        assert answer(sock) == "b"

    def has_gone() -> bool:
        return cluster.mode.change({}, {}, []) and not ipvs.count()

    wait_until(has_gone, DRAINED_S, "the end of the virtual server", every_s=0.2)
    assert cluster.lab.links(NODE).addresses(DEVICE) == set()


def test_an_endpoint_that_comes_back_while_it_drains_serves_again(cluster: ProxyLab, ipvs: NetlinkIpvs) -> None:
    cluster.mode.load(BC, HERE)
    assert cluster.mode.change(BC, C, KEYS)
    assert cluster.mode.change(C, BC, KEYS)
    assert cluster.mode.change(BC, BC, [])
    assert [state.weight for state in ipvs.reals(SERVER).values()] == [1, 1]
    assert cluster.outcome("a", VIP, 80, times=10) == {"b", "c"}


def test_a_udp_client_with_a_fixed_port_moves_on_when_its_endpoint_goes(cluster: ProxyLab) -> None:
    def ask() -> str:
        return cluster.ask("a", VIP, 80, "udp", source_port=5555, timeout_s=0.5).pod

    cluster.mode.load(B, HERE)
    assert ask() == "b"
    assert cluster.mode.change(B, C, KEYS)

    def has_moved_on() -> bool:
        try:
            return ask() == "c"
        except TimeoutError:
            return False

    wait_until(has_moved_on, DRAINED_S, "an answer of the new endpoint", every_s=0.1)


def test_what_a_killed_predecessor_left_is_taken_over_or_away(cluster: ProxyLab, ipvs: NetlinkIpvs) -> None:
    cluster.mode.load(ports(both(10, "b"), both(11, "b")), HERE)
    with connected(cluster, "tb-c-a") as sock:
        cluster.restarted(make_ipvs)
        cluster.mode.load(C, HERE)
        assert cluster.mode.differences(C) == []
        assert answer(sock) == "b"
    cluster.restarted(make_ipvs)
    wait_until(cluster.mode.teardown, DRAINED_S, "the end of everything", every_s=0.2)
    assert_nothing_is_left(cluster, ipvs)


def test_edits_by_hand_are_noticed_named_and_healed(cluster: ProxyLab, ipvs: NetlinkIpvs) -> None:
    cluster.mode.load(BC, HERE)
    assert not cluster.mode.was_edited()
    real = min(ipvs.reals(SERVER))
    ipvs.delete_reals([(SERVER, real)])
    cluster.lab.links(NODE).set_addresses(DEVICE, [IPv4Interface("10.96.0.99/32")])
    assert cluster.mode.differences(BC) == [
        f"- address 10.96.0.99/32 dev {DEVICE}",
        f"+ address {VIP}/32 dev {DEVICE}",
        f"+ real server {real.address}:{real.port} of -t {VIP}:80",
    ]
    ipvs.delete_servers([SERVER])
    assert cluster.mode.was_edited()
    cluster.mode.load(BC, HERE)
    assert cluster.mode.differences(BC) == []
    assert cluster.outcome("a", VIP, 80, times=10) == {"b", "c"}


@pytest.mark.parametrize("other", [name for name in MAKE if name != "ipvs"])
@pytest.mark.parametrize("client", ["a", "node"])
def test_connections_outlive_the_coming_and_going_of_modes(
    cluster: ProxyLab, ipvs: NetlinkIpvs, other: str, client: str
) -> None:
    place = NODE if client == "node" else "tb-c-a"
    old: Mode = MAKE[other](cluster.lab, NODE)
    old.load(B, HERE)
    with connected(cluster, place) as first:
        cluster.mode.load(C, HERE)
        assert old.teardown()
        assert cluster.outcome(client, VIP, 80, times=3) == {"c"}
        with connected(cluster, place) as second:
            assert answer(first) == "b"
            new: Mode = MAKE[other](cluster.lab, NODE)
            new.load(B, HERE)
            assert not cluster.mode.teardown()
            assert cluster.outcome(client, VIP, 80, times=3) == {"b"}
            assert answer(second) == "c"
    wait_until(cluster.mode.teardown, DRAINED_S, "the end of everything", every_s=0.2)
    assert_nothing_is_left(cluster, ipvs)
    assert cluster.outcome(client, VIP, 80, times=3) == {"b"}


def assert_nothing_is_left(cluster: ProxyLab, ipvs: NetlinkIpvs) -> None:
    assert ipvs.count() == 0
    assert DEVICE not in {link.name for link in cluster.lab.links(NODE).links()}
    assert "testbed-ipvs" not in cluster.nft.list("tables")
