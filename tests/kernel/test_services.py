"""Service rules, judged by connections: one node, a few pods, a client on the node itself."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.api.objects import Key
from testbed.errors import KernelError
from testbed.kernel.nft import LibNft
from testbed.network import podlink
from testbed.network.sysctls import ensure_sysctls
from testbed.proxy.proxier import Proxier
from testbed.proxy.servicemap import Endpoint, VirtualPort
from tests.kernel.lab import Lab

CIDR = IPv4Network("10.244.1.0/24")
VIP = "10.96.0.10"
NODE = "tb-c-node"
SERVICE = Key("default", "web")

Answer = Callable[..., str]


@pytest.fixture
def node(lab: Lab) -> Iterator[Lab]:
    """A node with pods .2, .3 and .4; each answers at TCP and UDP 8080 with its number."""
    lab.plug(NODE, "198.18.0.2/16")
    ensure_sysctls(lab.place(NODE))
    links = lab.links(NODE)
    podlink.ensure_bridge(links, CIDR, 1450)
    with ExitStack() as servers:
        for at in (2, 3, 4):
            pod = lab.place(f"tb-c-{at}")
            address = IPv4Address(f"10.244.1.{at}")
            podlink.attach(links, pod, device=f"veth{at}", address=address, gateway=CIDR[1], mtu=1450)
            for protocol in ("tcp", "udp"):
                servers.enter_context(lab.serve(f"tb-c-{at}", protocol, 8080, str(at)))
        yield lab


@pytest.fixture
def proxier(node: Lab) -> Proxier:
    return fresh_proxier(node)


def fresh_proxier(lab: Lab, nft: LibNft | None = None) -> Proxier:
    return Proxier(nft or lab.nft(NODE), lab.conntrack(NODE))


def ports(*pods: int, vip: str = VIP, port: int = 80) -> tuple[VirtualPort, ...]:
    """One Service, TCP and UDP, whose endpoints are those pods."""
    endpoints = tuple(Endpoint(IPv4Address(f"10.244.1.{pod}"), 8080) for pod in pods)
    return tuple(
        VirtualPort(IPv4Address(vip), protocol, port, endpoints, frozenset(endpoints)) for protocol in ("tcp", "udp")
    )


def answers(lab: Lab, client: str, protocol: str, times: int = 40) -> set[str]:
    return {lab.ask(client, protocol, VIP, 80) for _ in range(times)}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_cluster_ip_reaches_every_endpoint_and_keeps_the_source(node: Lab, proxier: Proxier, protocol: str) -> None:
    proxier.sync({SERVICE: ports(3, 4)}, CIDR)
    assert answers(node, "tb-c-2", protocol) == {"3 10.244.1.2", "4 10.244.1.2"}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_process_of_the_node_itself_reaches_a_cluster_ip(node: Lab, proxier: Proxier, protocol: str) -> None:
    proxier.sync({SERVICE: ports(3, 4)}, CIDR)
    assert answers(node, NODE, protocol) == {"3 198.18.0.2", "4 198.18.0.2"}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_pod_reaches_itself_through_its_service(node: Lab, proxier: Proxier, protocol: str) -> None:
    proxier.sync({SERVICE: ports(2)}, CIDR)
    assert answers(node, "tb-c-2", protocol, 10) == {"2 10.244.1.1"}


@pytest.mark.parametrize(("protocol", "port"), [("tcp", 80), ("udp", 80), ("tcp", 81), ("udp", 81)])
def test_a_service_without_endpoints_and_an_undefined_port_are_refused_at_once(
    node: Lab, proxier: Proxier, protocol: str, port: int
) -> None:
    proxier.sync({SERVICE: ports(*([3] if port == 81 else []))}, CIDR)
    with pytest.raises(ConnectionRefusedError):
        node.ask("tb-c-2", protocol, VIP, port, timeout_s=0.5)
    # To a process of the node itself the kernel says of UDP that sending is not permitted (as with kube-proxy).
    with pytest.raises(ConnectionRefusedError if protocol == "tcp" else PermissionError):
        node.ask(NODE, protocol, VIP, port, timeout_s=0.5)


def test_a_refusal_is_not_rate_limited(node: Lab, proxier: Proxier) -> None:
    proxier.sync({SERVICE: ports()}, CIDR)
    for _ in range(30):
        with pytest.raises(ConnectionRefusedError):
            node.ask("tb-c-2", "tcp", VIP, 80, timeout_s=0.5)


def test_endpoints_come_and_go_and_new_connections_follow(node: Lab, proxier: Proxier) -> None:
    for pods in ((), (3,), (3, 4), (2, 3, 4), (2,), ()):
        proxier.sync({SERVICE: ports(*pods)}, CIDR)
        if pods:
            assert {answer[0] for answer in answers(node, NODE, "tcp")} == {str(pod) for pod in pods}
        else:
            with pytest.raises(ConnectionRefusedError):
                node.ask(NODE, "tcp", VIP, 80)


def test_a_service_that_outgrows_the_chains_made_beforehand_is_served_by_all(node: Lab, proxier: Proxier) -> None:
    proxier.sync({SERVICE: ports(3)}, CIDR)
    proxier.sync({SERVICE: ports(*([3] + [4] * 20))}, CIDR)
    assert answers(node, "tb-c-2", "tcp", 100) == {"3 10.244.1.2", "4 10.244.1.2"}


def test_a_deleted_service_takes_its_elements_along_and_leaves_the_others(node: Lab, proxier: Proxier) -> None:
    other = Key("default", "other")
    proxier.sync({SERVICE: ports(3), other: ports(4, vip="10.96.0.11")}, CIDR)
    proxier.sync({other: ports(4, vip="10.96.0.11")}, CIDR)
    assert node.ask("tb-c-2", "tcp", "10.96.0.11", 80) == "4 10.244.1.2"
    assert VIP not in node.nft(NODE).list()


def connect(lab: Lab, client: str) -> socket.socket:
    sock = lab.inside(client, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    sock.settimeout(2)
    sock.connect((VIP, 80))
    return sock


def test_an_established_connection_survives_restart_replacement_and_the_loss_of_its_endpoint(
    node: Lab, proxier: Proxier
) -> None:
    proxier.sync({SERVICE: ports(3)}, CIDR)
    with connect(node, "tb-c-2") as open_connection:
        fresh_proxier(node).sync({SERVICE: ports(3)}, CIDR)
        proxier.reload()
        proxier.sync({SERVICE: ports(4)}, CIDR)
        open_connection.send(b"?")
        assert open_connection.recv(100) == b"3 10.244.1.2"


def test_a_flushed_ruleset_is_noticed_and_loaded_again(node: Lab) -> None:
    nft = node.nft(NODE)
    proxier = fresh_proxier(node, nft)
    proxier.sync({SERVICE: ports(3)}, CIDR)
    assert not nft.was_edited()
    node.nft(NODE).load("flush ruleset")
    assert nft.was_edited()
    proxier.reload()
    proxier.sync({SERVICE: ports(3)}, CIDR)
    assert node.ask("tb-c-2", "tcp", VIP, 80) == "3 10.244.1.2"


def test_a_change_to_rules_that_are_gone_loads_all_of_them(node: Lab, proxier: Proxier) -> None:
    other = Key("default", "other")
    proxier.sync({SERVICE: ports(3), other: ports(4, vip="10.96.0.11")}, CIDR)
    node.nft(NODE).load("flush ruleset")
    proxier.sync({SERVICE: ports(4), other: ports(4, vip="10.96.0.11")}, CIDR)
    assert node.ask("tb-c-2", "tcp", VIP, 80) == "4 10.244.1.2"
    assert node.ask("tb-c-2", "tcp", "10.96.0.11", 80) == "4 10.244.1.2"


def test_a_udp_client_with_a_fixed_port_moves_on_when_its_endpoint_is_replaced(node: Lab, proxier: Proxier) -> None:
    def ask() -> str:
        return node.ask("tb-c-2", "udp", VIP, 80, source=5555)

    proxier.sync({SERVICE: ports(3)}, CIDR)
    assert ask() == "3 10.244.1.2"
    proxier.sync({SERVICE: ports(4)}, CIDR)
    assert ask() == "4 10.244.1.2"
    proxier.sync({SERVICE: ports(3, 4)}, CIDR)
    assert ask() == "4 10.244.1.2"


class CrampedNft(LibNft):
    """Refuses large transactions, as the kernel does to an unprivileged user with a small socket buffer."""

    def load(self, script: str) -> None:
        if script.count(" : 10.244.1.") > 1500:
            raise KernelError("nft: Message too long", errno.EMSGSIZE)
        super().load(script)


def test_rules_too_large_for_one_transaction_take_over_whole_in_several(node: Lab) -> None:
    many = {Key("default", f"s{at}"): ports(3, vip=f"10.96.{1 + at // 250}.{at % 250}") for at in range(1500)}
    nft = CrampedNft(node.place(NODE))
    proxier = fresh_proxier(node, nft)
    for pods in ((3,), (4,)):
        proxier.reload()
        proxier.sync(many | {SERVICE: ports(*pods)}, CIDR)
        assert node.ask("tb-c-2", "tcp", VIP, 80) == f"{pods[0]} 10.244.1.2"
        assert node.ask("tb-c-2", "tcp", "10.96.1.1", 80) == "3 10.244.1.2"
        assert nft.list().count("table ip") == 1
    nft.close()
