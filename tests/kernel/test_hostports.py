"""Host ports, judged by connections: a node with two pods, a client outside, and everybody asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from testbed.agent.hostports import Doors, NodeTable
from testbed.network import podlink
from testbed.network.hostports import TABLE, HostPort
from testbed.network.sysctls import ensure_sysctls
from testbed.topology.spec import NodeSpec
from tests.kernel.lab import Lab

CIDR = IPv4Network("10.244.1.0/24")
NODE, OUTSIDE = "tb-f-node", "tb-f-out"
FIRST, SECOND = IPv4Address("10.244.1.2"), IPv4Address("10.244.1.3")
AT_NODE, AT_OUTSIDE, OTHER = "198.18.0.2", "198.18.0.9", IPv4Address("198.18.0.3")
SPEC = NodeSpec(NODE, "here", "worker", {}, IPv4Interface(f"{AT_NODE}/16"), "", CIDR, "")


@pytest.fixture
def node(lab: Lab) -> Iterator[Lab]:
    """A node with two addresses and the pods .2 and .3, which answer at TCP and UDP 8080; a machine outside."""
    for name, own in ((NODE, AT_NODE), (OUTSIDE, AT_OUTSIDE)):
        lab.plug(name, f"{own}/16")
    links = lab.links(NODE)
    links.ensure_addresses("eth0", [IPv4Interface((OTHER, 16))])
    ensure_sysctls(lab.place(NODE))
    podlink.ensure_bridge(links, CIDR, 1450)
    with ExitStack() as servers:
        for address in (FIRST, SECOND):
            name = _place(address)
            podlink.attach(
                links, lab.place(name), device=f"veth{str(address)[-1]}", address=address, gateway=CIDR[1], mtu=1450
            )
            for protocol in ("tcp", "udp"):
                servers.enter_context(lab.serve(name, protocol, 8080, str(address)[-1]))
        yield lab


@pytest.fixture
def table(node: Lab) -> Iterator[NodeTable]:
    table = _table(node)
    yield table
    table.close()


def port(number: int, target: IPv4Address, protocol: str = "tcp", host_ip: IPv4Address | None = None) -> HostPort:
    return HostPort(protocol, number, target, 8080, host_ip)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_host_port_leads_everybody_to_the_pod_which_sees_who_asks(node: Lab, table: NodeTable, protocol: str) -> None:
    table.sync([port(80, FIRST, protocol)])
    asked = {name: node.ask(name, protocol, AT_NODE, 80) for name in (OUTSIDE, _place(SECOND), NODE)}
    assert asked == {OUTSIDE: f"2 {AT_OUTSIDE}", _place(SECOND): f"2 {SECOND}", NODE: f"2 {AT_NODE}"}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_pod_reaches_itself_through_its_host_port(node: Lab, table: NodeTable, protocol: str) -> None:
    table.sync([port(80, FIRST, protocol), port(81, SECOND, protocol)])
    assert node.ask(_place(FIRST), protocol, AT_NODE, 80) == f"2 {CIDR[1]}"


def test_one_number_leads_to_two_pods_by_protocol_and_by_address(node: Lab, table: NodeTable) -> None:
    table.sync([port(80, FIRST), port(80, SECOND, "udp"), port(80, SECOND, "tcp", OTHER)])
    assert node.ask(OUTSIDE, "tcp", AT_NODE, 80) == f"2 {AT_OUTSIDE}"
    assert node.ask(OUTSIDE, "udp", AT_NODE, 80) == f"3 {AT_OUTSIDE}"
    assert node.ask(OUTSIDE, "tcp", str(OTHER), 80) == f"3 {AT_OUTSIDE}"


def test_other_ports_and_loopback_are_left_alone(node: Lab, table: NodeTable) -> None:
    table.sync([port(80, FIRST)])
    for client, host, number in ((OUTSIDE, AT_NODE, 81), (NODE, "127.0.0.1", 80), (OUTSIDE, str(FIRST), 80)):
        with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
            node.ask(client, "tcp", host, number, timeout_s=0.5)


def test_a_udp_client_with_a_fixed_port_moves_on_to_the_pod_that_has_come(node: Lab, table: NodeTable) -> None:
    for target, name in ((FIRST, "2"), (SECOND, "3")):
        table.sync([port(53, target, "udp")])
        assert node.ask(OUTSIDE, "udp", AT_NODE, 53, source=5555)[0] == name


def test_nothing_is_loaded_that_is_there_and_what_was_edited_is_mended(node: Lab, table: NodeTable) -> None:
    stranger = node.nft(NODE)
    table.sync([port(80, FIRST)])
    assert stranger.was_edited()
    table.sync([port(80, FIRST)])
    assert not stranger.was_edited()
    stranger.load(f"flush chain ip {TABLE} prerouting")
    table.sync([port(80, FIRST)])
    assert node.ask(OUTSIDE, "tcp", AT_NODE, 80) == f"2 {AT_OUTSIDE}"


def test_a_node_without_host_ports_has_no_table_not_even_one_that_was_left(node: Lab, table: NodeTable) -> None:
    rules = node.nft(NODE)
    table.sync([])
    assert not rules.was_edited()
    table.sync([port(80, FIRST)])
    _table(node).sync([])
    assert rules.list(f"table ip {TABLE}") == ""


def _table(lab: Lab) -> NodeTable:
    return NodeTable(SPEC, Doors(lambda name: lab.place(name)))


def _place(address: IPv4Address) -> str:
    return f"tb-f-{str(address)[-1]}"
