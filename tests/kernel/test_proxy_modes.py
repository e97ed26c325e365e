"""Where packets go, mode by mode: one table of packet flows, and what happens in the course of time.

The table is in the manner of kube-proxy's own ("pod to cluster IP": from, to, endpoints, masqueraded or not). A mode
takes part by an entry in MAKE; a case that is different in some modes names those it is good for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.errors import KernelError, TimedOut
from testbed.kernel.iptables import CommandIptables
from testbed.proxy.iptables import IptablesMode
from testbed.proxy.ipvs import IpvsMode
from testbed.proxy.kubeproxy import KubeProxyMode
from testbed.proxy.nftables import NftablesMode
from testbed.proxy.virtualport import Ports
from testbed.waiting import wait_until
from tests.kernel.lab import Lab
from tests.kernel.proxy_lab import HERE, SECOND_ADDRESS, Make, ProxyLab, both, port, ports, proxy_lab
from tests.kernel.test_ipvs import skip_without_ipvs


def make_ipvs(lab: Lab, place: str) -> IpvsMode:
    """Skipped, with the reason, where this kernel has none: tests/vm runs it in a virtual machine."""
    skip_without_ipvs(lab.place("tb-d-try"))
    return IpvsMode(lab.nft(place), lab.ipvs(place), lab.links(place))


def make_iptables(lab: Lab, place: str) -> IptablesMode:
    nft = lab.nft(place)
    return IptablesMode(CommandIptables(nft, lab.place(place)), nft, lab.links(place))


MAKE: dict[str, Make] = {
    "nftables": lambda lab, place: NftablesMode(lab.nft(place), lab.links(place)),
    "nftables-kubeproxy": lambda lab, place: KubeProxyMode(lab.nft(place), lab.links(place)),
    "iptables": make_iptables,
    "ipvs": make_ipvs,
}
NFT = frozenset({"nftables", "nftables-kubeproxy"})
ALL = NFT | {"iptables", "ipvs"}
IPVS = frozenset({"ipvs"})
"""One list of endpoints for everybody, and clients remembered address by address: see testbed/proxy/ipvs.py."""

NODE, EXTERNAL, BALANCED = "198.18.0.2", "198.51.100.1", "198.51.100.2"
RANGES = (IPv4Network("198.18.0.9/32"), IPv4Network("10.244.1.2/32"))

SERVED = ports(
    both(10, "bd"),
    both(11, ""),
    both(12, "d", node_port=30012, external_ips=(IPv4Address(EXTERNAL),)),
    both(13, "bd", local="b", node_port=30013, load_balancer_ips=(IPv4Address(BALANCED),), is_external_local=True),
    both(14, "d", node_port=30014, load_balancer_ips=(IPv4Address("198.51.100.3"),), is_external_local=True),
    both(15, "", node_port=30015, external_ips=(IPv4Address("198.51.100.4"),)),
    both(16, "bd", local="b", is_internal_local=True),
    both(17, "d", is_internal_local=True),
    both(18, "b", load_balancer_ips=(IPv4Address("198.51.100.5"),), source_ranges=RANGES, node_port=30018),
    both(19, "a"),
    (port(20, "b"), port(20, "b", protocol="sctp")),
    both(21, "bd", affinity_s=60, node_port=30021),
    both(
        22, "bd", local="b", affinity_s=60, node_port=30022,
        is_external_local=True, load_balancer_ips=(IPv4Address("198.51.100.6"),), source_ranges=RANGES,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Flow:
    """One line of the table: `~` behind a pod's letter says that it sees the node and not the client."""

    name: str
    source: str
    address: str
    port: int
    outcome: str
    modes: frozenset[str] = ALL
    protocols: tuple[str, ...] = ("tcp", "udp")


FLOWS = [
    Flow("pod to cluster IP", "a", "10.96.0.10", 80, "b d"),
    Flow("pod to its own Service", "a", "10.96.0.19", 80, "a~"),
    Flow("node to cluster IP", "node", "10.96.0.10", 80, "b d"),
    Flow("from outside to cluster IP", "client", "10.96.0.10", 80, "b~ d~"),
    Flow("cluster IP without endpoints", "a", "10.96.0.11", 80, "refused"),
    Flow("cluster IP without endpoints, from the node", "node", "10.96.0.11", 80, "refused"),
    Flow("port of a cluster IP that is not defined", "a", "10.96.0.10", 81, "refused", NFT | IPVS),
    Flow("port of a cluster IP that is not defined, from the node", "node", "10.96.0.10", 81, "refused", NFT | IPVS),
    Flow("address of the service CIDR that is not allocated", "a", "10.96.7.7", 80, "silent", NFT),
    Flow("cluster IP beside an SCTP port", "a", "10.96.0.20", 80, "b", protocols=("tcp",)),
    Flow("from outside to node port", "client", NODE, 30012, "d~"),
    Flow("pod to node port", "a", NODE, 30012, "d~"),
    Flow("node to its node port", "node", NODE, 30012, "d"),
    Flow("node to its node port at the loopback", "node", "127.0.0.1", 30012, "refused"),
    Flow("node port at another address of the node", "client", SECOND_ADDRESS, 30012, "refused", NFT),
    Flow("node port without endpoints", "client", NODE, 30015, "refused"),
    Flow("from outside to external IP", "client", EXTERNAL, 80, "d~"),
    Flow("pod to external IP", "a", EXTERNAL, 80, "d~"),
    Flow("node to external IP", "node", EXTERNAL, 80, "d"),
    Flow("external IP without endpoints", "client", "198.51.100.4", 80, "refused"),
    Flow("pod to external IP without endpoints", "a", "198.51.100.4", 80, "refused"),
    Flow("policy Local, from outside to node port", "client", NODE, 30013, "b"),
    Flow("policy Local, from outside to load balancer", "client", BALANCED, 80, "b"),
    Flow("policy Local, pod to load balancer", "a", BALANCED, 80, "b d", ALL - IPVS),
    Flow("policy Local, pod to node port", "a", NODE, 30013, "b d", ALL - IPVS),
    Flow("policy Local, pod to itself by load balancer", "b", BALANCED, 80, "b~ d", ALL - IPVS),
    Flow("policy Local, node to load balancer", "node", BALANCED, 80, "b d", ALL - IPVS),
    Flow("policy Local, node to node port", "node", NODE, 30013, "b d", ALL - IPVS),
    Flow("policy Local without local endpoint, from outside", "client", NODE, 30014, "silent"),
    Flow("policy Local without local endpoint, from outside to balancer", "client", "198.51.100.3", 80, "silent"),
    Flow("policy Local without local endpoint, from a pod", "a", "198.51.100.3", 80, "d", ALL - IPVS),
    Flow("policy Local without local endpoint, from the node", "node", NODE, 30014, "d", ALL - IPVS),
    Flow("policy Local, pod to load balancer, all the same", "a", BALANCED, 80, "b", IPVS),
    Flow("policy Local, pod to itself by load balancer, all the same", "b", BALANCED, 80, "b~", IPVS),
    Flow("policy Local, node to node port, all the same", "node", NODE, 30013, "b", IPVS),
    Flow("policy Local without local endpoint, from a pod, all the same", "a", "198.51.100.3", 80, "silent", IPVS),
    Flow("internal policy Local", "a", "10.96.0.16", 80, "b"),
    Flow("internal policy Local without local endpoint", "a", "10.96.0.17", 80, "silent"),
    Flow("load balancer, source in range", "client", "198.51.100.5", 80, "b~"),
    Flow("load balancer, pod in range", "a", "198.51.100.5", 80, "b~"),
    Flow("load balancer, pod out of range", "c", "198.51.100.5", 80, "silent"),
    Flow("load balancer, node out of range", "node", "198.51.100.5", 80, "silent", protocols=("tcp",)),
    Flow("node port of a guarded load balancer is not guarded", "c", NODE, 30018, "b~"),
    Flow("affinity, Local and source ranges, from outside", "client", "198.51.100.6", 80, "b"),
    Flow("affinity, Local and source ranges, out of range", "c", "198.51.100.6", 80, "silent"),
    Flow("affinity and Local, from outside to node port", "client", NODE, 30022, "b"),
    Flow("pod to pod", "a", "10.244.2.2", 8080, "d"),
]


@pytest.fixture(params=MAKE, scope="module")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ProxyLab]]:
    """A lab in which one mode serves all of SERVED."""
    with closing(Lab(tmp_path_factory.mktemp(request.param))) as lab:
        try:
            lab.place("tb-c-try")
        except (KernelError, PermissionError) as error:
            pytest.skip(f"this user may make no network namespace ({error}); run under: unshare -Urnm")
        with proxy_lab(lab, MAKE[request.param]) as cluster:
            cluster.mode.load(SERVED, HERE)
            yield request.param, cluster


@pytest.fixture(params=MAKE)
def cluster(request: pytest.FixtureRequest, lab: Lab) -> Iterator[ProxyLab]:
    """A lab whose mode has loaded nothing."""
    with proxy_lab(lab, MAKE[request.param]) as cluster:
        yield cluster


CASES = [
    pytest.param(mode, flow, protocol, id=f"{mode}-{flow.name}-{protocol}")
    for mode in MAKE
    for flow in FLOWS
    for protocol in flow.protocols
    if mode in flow.modes
]


@pytest.mark.parametrize(("served", "flow", "protocol"), CASES, indirect=["served"])
def test_packet_flow(served: tuple[str, ProxyLab], flow: Flow, protocol: str) -> None:
    _, cluster = served
    wanted = set(flow.outcome.split())
    times = 1 if wanted & {"refused", "silent"} else 12 * len(wanted)
    assert cluster.outcome(flow.source, flow.address, flow.port, protocol, times) == wanted


def test_what_is_there_is_what_should_be(served: tuple[str, ProxyLab]) -> None:
    assert served[1].mode.differences(SERVED) == []


def test_a_change_leads_where_a_load_would(cluster: ProxyLab) -> None:
    cluster.mode.load(ports(both(10, "b")), HERE)
    before = ports(both(10, "b"))
    for group in SERVED.values():
        after = {**before, group[0].service: group}
        assert cluster.mode.change(before, after, [group[0].service])
        before = after
    assert cluster.mode.differences(SERVED) == []
    assert cluster.mode.change(before, {}, list(before))
    assert cluster.mode.differences({}) == []


# Each virtual server of IPVS remembers its own clients.
@pytest.mark.parametrize("cluster", sorted(ALL - IPVS), indirect=True)
def test_a_client_with_affinity_keeps_its_endpoint_by_every_way(cluster: ProxyLab) -> None:
    cluster.mode.load(ports(both(21, "bcd", affinity_s=60, node_port=30021)), HERE)
    for source in ("a", "client"):
        first = cluster.ask(source, "10.96.0.21", 80).pod
        assert {cluster.ask(source, "10.96.0.21", 80).pod for _ in range(15)} == {first}
        assert {cluster.ask(source, NODE, 30021).pod for _ in range(15)} == {first}


def test_affinity_ends_with_its_endpoint_and_begins_anew(cluster: ProxyLab) -> None:
    before = ports(both(21, "bcd", affinity_s=60))
    cluster.mode.load(before, HERE)
    gone = cluster.ask("a", "10.96.0.21", 80).pod
    after = ports(both(21, "bcd".replace(gone, ""), affinity_s=60))
    assert cluster.mode.change(before, after, list(after))
    kept = cluster.ask("a", "10.96.0.21", 80).pod
    assert kept != gone
    assert cluster.mode.change(after, before, list(after))
    assert {cluster.ask("a", "10.96.0.21", 80).pod for _ in range(15)} == {kept}


# IPVS remembers a client for as long as its connections, and those for two minutes after their end.
@pytest.mark.parametrize("cluster", sorted(ALL - IPVS), indirect=True)
def test_affinity_times_out_unless_it_is_used(cluster: ProxyLab) -> None:
    cluster.mode.load(ports(both(21, "bcd", affinity_s=1)), HERE)
    first = cluster.ask("a", "10.96.0.21", 80).pod

    def moved() -> bool:
        return cluster.ask("a", "10.96.0.21", 80).pod != first

    with pytest.raises(TimedOut):
        wait_until(moved, 2.5, "a new endpoint", every_s=0.2)
    wait_until(moved, 30, "a new endpoint", every_s=1.3)


def test_affinity_is_switched_on_and_off_while_clients_come(cluster: ProxyLab) -> None:
    off, on = ports(both(21, "bcd")), ports(both(21, "bcd", affinity_s=60))
    cluster.mode.load(off, HERE)
    for before, after, expected in ((off, on, 1), (on, off, 3), (off, on, 1)):
        assert cluster.mode.change(before, after, list(after))
        assert len({cluster.ask("a", "10.96.0.21", 80).pod for _ in range(40)}) == expected


def test_affinity_outlives_the_daemon(cluster: ProxyLab, request: pytest.FixtureRequest) -> None:
    served = ports(both(21, "bcd", affinity_s=60))
    cluster.mode.load(served, HERE)
    first = cluster.ask("a", "10.96.0.21", 80).pod
    cluster.restarted(MAKE[request.node.callspec.params["cluster"]])
    cluster.mode.load(served, HERE)
    assert {cluster.ask("a", "10.96.0.21", 80).pod for _ in range(15)} == {first}


def test_node_ports_are_served_where_the_node_has_addresses_of_the_networks_named(cluster: ProxyLab) -> None:
    named = (IPv4Network("192.0.2.0/24"), IPv4Network("127.0.0.0/8"))
    cluster.mode.load(ports(both(12, "b", node_port=30012)), replace(HERE, node_port_addresses=named))
    assert cluster.outcome("client", SECOND_ADDRESS, 30012) == {"b~"}
    assert cluster.outcome("client", NODE, 30012) == {"refused"}
    assert cluster.outcome("node", "127.0.0.1", 30012) == {"refused"}


def test_source_ranges_widen_and_narrow_while_they_guard(cluster: ProxyLab) -> None:
    def served(*ranges: str) -> Ports:
        return ports(
            both(18, "b", load_balancer_ips=(IPv4Address(BALANCED),), source_ranges=tuple(map(IPv4Network, ranges)))
        )

    narrow, wide = served("198.18.0.9/32", "198.18.0.0/24"), served("10.0.0.0/8", "0.0.0.0/0")
    cluster.mode.load(narrow, HERE)
    for before, after, pods in ((narrow, narrow, "silent"), (narrow, wide, "b~"), (wide, narrow, "silent")):
        assert cluster.mode.change(before, after, list(after))
        assert cluster.outcome("client", BALANCED, 80) == {"b~"}
        assert cluster.outcome("a", BALANCED, 80) == {pods}


def test_an_established_connection_outlives_its_endpoint_the_daemon_and_the_mode(
    cluster: ProxyLab, request: pytest.FixtureRequest
) -> None:
    before, after = ports(both(10, "b", node_port=30010)), ports(both(10, "d", node_port=30010))
    cluster.mode.load(before, HERE)
    with cluster.connected("a", "10.96.0.10", 80) as inside, cluster.connected("client", NODE, 30010) as outside:
        assert cluster.mode.change(before, after, list(after))
        cluster.restarted(MAKE[request.node.callspec.params["cluster"]])
        cluster.mode.load(after, HERE)
        assert cluster.ask("a", "10.96.0.10", 80).pod == "d"
        cluster.mode.teardown()
        for connection in (inside, outside):
            connection.send(b"?")
            assert connection.recv(100).startswith(b"b ")


def test_an_address_claimed_by_two_services_is_the_firsts_whatever_comes_when(cluster: ProxyLab) -> None:
    address = (IPv4Address(EXTERNAL),)
    first, second = both(12, "b", external_ips=address), both(13, "d", external_ips=address)
    alone, together = ports(second), ports(second, first)
    cluster.mode.load(together, HERE)
    assert cluster.mode.differences(together) == []
    for before, after, which, pod in (
        (together, alone, first, "d~"),
        (alone, together, first, "b~"),
        (together, ports(first), second, "b~"),
    ):
        assert cluster.mode.change(before, after, [which[0].service])
        assert cluster.outcome("client", EXTERNAL, 80, times=6) == {pod}
        assert cluster.mode.differences(after) == []


def test_teardown_leaves_nothing_and_may_be_repeated(cluster: ProxyLab) -> None:
    cluster.mode.load(SERVED, HERE)
    assert cluster.mode.teardown()
    assert cluster.mode.teardown()
    assert cluster.outcome("client", NODE, 30012) == {"refused"}
    assert "10.96.0.10" not in cluster.nft.list()


def test_the_way_of_a_connection_is_told_with_its_endpoints_and_clients(cluster: ProxyLab) -> None:
    served = ports(both(21, "bcd", affinity_s=60, node_port=30021))
    cluster.mode.load(served, HERE)
    kept = cluster.ask("a", "10.96.0.21", 80).pod
    told = "\n".join(cluster.mode.explain(next(iter(served.values()))[0]))
    for word in ("10.96.0.21", "30021", "10.244.1.3", "10.244.1.4", "10.244.2.2", "10.244.1.2"):
        assert word in told
    assert kept in "bcd"
