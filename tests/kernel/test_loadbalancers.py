"""The switch as a load balancer: packets from a machine outside reach the nodes, and answers find their way back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from testbed.agent.wiring import BALANCING, ROUTER, Kernel, Wiring
from testbed.kernel.links import Hop, Links
from testbed.kernel.netlink import NetlinkLinks
from testbed.kernel.nft import LibNft
from testbed.kernel.sysctl import set_sysctls
from tests.kernel.lab import Lab
from tests.unit.agent.specs import cluster, node

SPEC = cluster(node("a", 1), node("b", 2), node("client", 9, role="external"))
NODES = {name: next(node.address.ip for node in SPEC.nodes if node.name == name) for name in ("a", "b")}
NETWORK, VIP = IPv4Network("192.0.2.0/24"), "192.0.2.7"
REDIRECT = f"""
table ip service {{
    chain prerouting {{
        type nat hook prerouting priority dstnat
        ip daddr {VIP} redirect
    }}
}}
"""
"""What a node's service rules come to: the address is answered here."""
CLIENT = "203.0.113.19"
SILENCE_S = 0.3


class Cloud:
    """A wired host whose nodes answer for the address."""

    def __init__(self, lab: Lab, undo: ExitStack) -> None:
        self.lab = lab
        switch = lab.place("tb-g-switch")

        def links(netns: Path | None) -> Links:
            found = NetlinkLinks(netns or switch)
            undo.callback(found.close)
            return found

        def nft() -> LibNft:
            found = LibNft(switch)
            undo.callback(found.close)
            return found

        kernel = Kernel(links, nft, lambda: set_sysctls(switch, ROUTER | BALANCING))
        self.wiring = Wiring("here", lambda name: lab.place(f"tb-g-{name}"), kernel)
        self.wiring.sync(SPEC)
        for name in NODES:
            lab.nft(f"tb-g-{name}").load(REDIRECT)
            undo.enter_context(lab.serve(f"tb-g-{name}", "tcp", 80, name))
            undo.enter_context(lab.serve(f"tb-g-{name}", "udp", 81, name))

    def send_to(self, *names: str) -> None:
        """Balance over these nodes."""
        gateways = sorted(NODES[name] for name in names)
        routes = {IPv4Network(f"{VIP}/32"): Hop(gateways[0], tuple(gateways[1:]))} if gateways else {}
        self.wiring.balance(NETWORK, routes)

    def ask(self, protocol: str = "tcp", host: str = VIP, *, source: int = 0) -> str:
        """Who answers the client outside, and whom it saw."""
        port = 80 if protocol == "tcp" else 81
        return self.lab.ask("tb-g-client", protocol, host, port, source=source, timeout_s=SILENCE_S)


@pytest.fixture
def cloud(lab: Lab) -> Iterator[Cloud]:
    with ExitStack() as undo:
        yield Cloud(lab, undo)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_connections_of_one_client_are_spread_over_nodes_that_see_its_address(cloud: Cloud, protocol: str) -> None:
    cloud.send_to("a", "b")
    answers = Counter(cloud.ask(protocol, source=20_000 + number) for number in range(64))
    assert answers.keys() == {f"a {CLIENT}", f"b {CLIENT}"}
    assert min(answers.values()) > 8


def test_a_flow_stays_with_its_node(cloud: Cloud) -> None:
    cloud.send_to("a", "b")
    assert len({cloud.ask("udp", source=20_000) for _ in range(8)}) == 1


def test_a_node_that_leaves_gets_nothing_any_more(cloud: Cloud) -> None:
    for names in (("a", "b"), ("b",), ("a",)):
        cloud.send_to(*names)
    assert {cloud.ask(source=21_000 + number) for number in range(16)} == {f"a {CLIENT}"}


def test_an_address_without_nodes_is_silent_and_so_is_one_that_nobody_has(cloud: Cloud) -> None:
    cloud.send_to("a")
    with pytest.raises(TimeoutError):
        cloud.ask(host="192.0.2.8")
    cloud.send_to()
    with pytest.raises(TimeoutError):
        cloud.ask()


def test_the_routes_survive_another_wiring(cloud: Cloud) -> None:
    cloud.send_to("a", "b")
    cloud.wiring.sync(SPEC)
    assert cloud.ask().endswith(CLIENT)
