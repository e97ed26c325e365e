"""Service rules, judged by connections: one node, a few pods, a client on the node itself."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.api.objects import Key
from testbed.network import podlink
from testbed.network.sysctls import ensure_sysctls
from testbed.proxy import MODES
from testbed.proxy.proxier import Proxier
from testbed.proxy.services import Snapshot
from testbed.proxy.virtualport import Endpoint, Here, Ports, VirtualPort
from tests.kernel.lab import Lab
from tests.unit.proxy.doors import fake_doors

CIDR = IPv4Network("10.244.1.0/24")
VIP = "10.96.0.10"
NODE = "tb-c-node"
HERE = Here(NODE, IPv4Address("198.18.0.2"), CIDR, IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/16"))
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


def fresh_proxier(lab: Lab) -> Proxier:
    doors = replace(fake_doors(), nft=lab.nft(NODE), links=lab.links(NODE))
    return Proxier(doors, lab.conntrack(NODE), {"nftables": MODES["nftables"]})


def sync(proxier: Proxier, ports: Ports) -> None:
    """What a snapshot that knows of no earlier one says."""
    proxier.sync(Snapshot(ports, {}, 1, 1, None), HERE, "nftables")


def ports(*pods: int, vip: str = VIP, port: int = 80) -> tuple[VirtualPort, ...]:
    """One Service, TCP and UDP, whose endpoints are those pods."""
    endpoints = tuple(Endpoint(IPv4Address(f"10.244.1.{pod}"), 8080) for pod in pods)
    return tuple(
        VirtualPort(
            SERVICE, protocol, protocol, IPv4Address(vip), port, cluster=endpoints, has_endpoints=bool(pods),
            serving=frozenset(endpoints),
        )
        for protocol in ("tcp", "udp")
    )  # fmt: skip


def answers(lab: Lab, client: str, protocol: str, times: int = 40) -> set[str]:
    return {lab.ask(client, protocol, VIP, 80) for _ in range(times)}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_cluster_ip_reaches_every_endpoint_and_keeps_the_source(node: Lab, proxier: Proxier, protocol: str) -> None:
    sync(proxier, {SERVICE: ports(3, 4)})
    assert answers(node, "tb-c-2", protocol) == {"3 10.244.1.2", "4 10.244.1.2"}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_process_of_the_node_itself_reaches_a_cluster_ip(node: Lab, proxier: Proxier, protocol: str) -> None:
    sync(proxier, {SERVICE: ports(3, 4)})
    assert answers(node, NODE, protocol) == {"3 198.18.0.2", "4 198.18.0.2"}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_pod_reaches_itself_through_its_service(node: Lab, proxier: Proxier, protocol: str) -> None:
    sync(proxier, {SERVICE: ports(2)})
    assert answers(node, "tb-c-2", protocol, 10) == {"2 10.244.1.1"}


@pytest.mark.parametrize(("protocol", "port"), [("tcp", 80), ("udp", 80), ("tcp", 81), ("udp", 81)])
def test_a_service_without_endpoints_and_an_undefined_port_are_refused_at_once(
    node: Lab, proxier: Proxier, protocol: str, port: int
) -> None:
    sync(proxier, {SERVICE: ports(*([3] if port == 81 else []))})
    with pytest.raises(ConnectionRefusedError):
        node.ask("tb-c-2", protocol, VIP, port, timeout_s=0.5)
    # To a process of the node itself the kernel says of UDP that sending is not permitted (as with kube-proxy).
    with pytest.raises(ConnectionRefusedError if protocol == "tcp" else PermissionError):
        node.ask(NODE, protocol, VIP, port, timeout_s=0.5)


def test_a_refusal_is_not_rate_limited(node: Lab, proxier: Proxier) -> None:
    sync(proxier, {SERVICE: ports()})
    for _ in range(30):
        with pytest.raises(ConnectionRefusedError):
            node.ask("tb-c-2", "tcp", VIP, 80, timeout_s=0.5)


def test_endpoints_come_and_go_and_new_connections_follow(node: Lab, proxier: Proxier) -> None:
    for pods in ((), (3,), (3, 4), (2, 3, 4), (2,), ()):
        sync(proxier, {SERVICE: ports(*pods)})
        if pods:
            assert {answer[0] for answer in answers(node, NODE, "tcp")} == {str(pod) for pod in pods}
        else:
            with pytest.raises(ConnectionRefusedError):
                node.ask(NODE, "tcp", VIP, 80)


def test_a_deleted_service_takes_its_elements_along_and_leaves_the_others(node: Lab, proxier: Proxier) -> None:
    other = Key("default", "other")
    sync(proxier, {SERVICE: ports(3), other: ports(4, vip="10.96.0.11")})
    sync(proxier, {other: ports(4, vip="10.96.0.11")})
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
    sync(proxier, {SERVICE: ports(3)})
    with connect(node, "tb-c-2") as open_connection:
        sync(fresh_proxier(node), {SERVICE: ports(3)})
        sync(proxier, {SERVICE: ports(4)})
        open_connection.send(b"?")
        assert open_connection.recv(100) == b"3 10.244.1.2"


def test_a_flushed_ruleset_is_noticed_and_loaded_again(node: Lab, proxier: Proxier) -> None:
    sync(proxier, {SERVICE: ports(3)})
    assert not proxier.was_edited()
    node.nft(NODE).load("flush ruleset")
    assert proxier.was_edited()
    sync(proxier, {SERVICE: ports(3)})
    assert node.ask("tb-c-2", "tcp", VIP, 80) == "3 10.244.1.2"


def test_a_change_to_rules_that_are_gone_loads_all_of_them(node: Lab, proxier: Proxier) -> None:
    other = Key("default", "other")
    sync(proxier, {SERVICE: ports(3), other: ports(4, vip="10.96.0.11")})
    node.nft(NODE).load("flush ruleset")
    sync(proxier, {SERVICE: ports(4), other: ports(4, vip="10.96.0.11")})
    assert node.ask("tb-c-2", "tcp", VIP, 80) == "4 10.244.1.2"
    assert node.ask("tb-c-2", "tcp", "10.96.0.11", 80) == "4 10.244.1.2"


def test_a_udp_client_with_a_fixed_port_moves_on_when_its_endpoint_is_replaced(node: Lab, proxier: Proxier) -> None:
    def ask() -> str:
        return node.ask("tb-c-2", "udp", VIP, 80, source=5555)

    sync(proxier, {SERVICE: ports(3)})
    assert ask() == "3 10.244.1.2"
    sync(proxier, {SERVICE: ports(4)})
    assert ask() == "4 10.244.1.2"
    sync(proxier, {SERVICE: ports(3, 4)})
    assert ask() == "4 10.244.1.2"
