"""Two nodes, a pod on each, and the ways to carry packets between them."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.kernel import probe
from testbed.network import BACKENDS, masquerade, podlink
from testbed.network.backend import Backend
from testbed.network.nodenet import NodeNet
from testbed.network.sysctls import ensure_sysctls
from testbed.topology.spec import NetworkSpec
from tests.kernel.lab import Lab

POD_CIDR = IPv4Network("10.244.0.0/16")
MTU = {"vxlan": 1450, "host-gw": 1500}
POD_A, POD_B = IPv4Address("10.244.1.2"), IPv4Address("10.244.2.2")
NODE_B = IPv4Address("198.18.0.12")


@dataclass
class Pair:
    """Nodes a and b; pods pod-a and pod-b."""

    lab: Lab
    mtu: int
    nodes: dict[str, NodeNet]
    backends: dict[str, Backend]

    def echo(self, place: str, source: IPv4Address, target: IPv4Address, size: int) -> dict[IPv4Address, str]:
        return probe.echo(self.lab.place(place), source, [target], size, timeout_s=0.5)


@pytest.fixture(params=sorted(BACKENDS))
def pair(request: pytest.FixtureRequest, lab: Lab) -> Pair:
    nodes = {
        name: NodeNet(
            name=name,
            underlay=IPv4Address(f"198.18.0.1{at}"),
            pod_cidr=IPv4Network(f"10.244.{at}.0/24"),
            vtep_mac=f"02:42:00:00:00:0{at}",
            backend=request.param,
        )
        for at, name in enumerate(("a", "b"), 1)
    }
    network = NetworkSpec(request.param, POD_CIDR, MTU[request.param], vni=1, port=8472)
    backends = {}
    for name, node in nodes.items():
        place = f"tb-c-{name}"
        lab.plug(place, f"{node.underlay}/16")
        ensure_sysctls(lab.place(place))
        links = lab.links(place)
        podlink.ensure_bridge(links, node.pod_cidr, network.pod_mtu)
        podlink.attach(
            links,
            lab.place(f"tb-c-pod-{name}"),
            device="vethpod",
            address=node.pod_cidr[2],
            gateway=node.gateway,
            mtu=network.pod_mtu,
        )
        backends[name] = backend = BACKENDS[request.param](links, node, network)
        backend.setup()
        backend.sync([peer for peer in nodes.values() if peer != node])
        lab.nft(place).load(masquerade.render(POD_CIDR, backend.device))
    return Pair(lab, network.pod_mtu, nodes, backends)


def test_a_full_size_packet_arrives_and_one_byte_more_does_not(pair: Pair) -> None:
    assert pair.echo("tb-c-pod-a", POD_A, POD_B, pair.mtu) == {}
    assert pair.echo("tb-c-pod-a", POD_A, POD_B, pair.mtu + 1) == {POD_B: "Message too long"}


def test_the_outer_packet_is_exactly_the_underlays_mtu_and_whole(pair: Pair) -> None:
    with pair.lab.inside("tb-c-b", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))) as tap:
        tap.bind(("eth0", 3))
        tap.settimeout(1)
        assert pair.echo("tb-c-pod-a", POD_A, POD_B, pair.mtu) == {}
        frames = iter(lambda: tap.recv(65536), b"")
        frame = next(frame for frame in frames if frame[12:14] == b"\x08\x00" and len(frame) > 1000)
    assert len(frame) - 14 == 1500
    assert int.from_bytes(frame[20:22], "big") & 0x3FFF == 0  # neither a fragment nor followed by one


def test_what_is_sent_to_the_pods_of_a_removed_node_is_refused_and_leaves_by_no_other_way(pair: Pair) -> None:
    pair.lab.links("tb-c-a").ensure_unreachable(POD_CIDR)
    pair.backends["a"].sync([])
    with pair.lab.inside("tb-c-a", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))) as tap:
        tap.bind(("eth0", 3))
        tap.settimeout(0.2)
        with pytest.raises(OSError, match="No route to host"):
            pair.lab.ask("tb-c-pod-a", "tcp", str(POD_B), 80)
        with suppress(TimeoutError):
            while True:
                assert tap.recv(65536)[30:34] != POD_B.packed, "the packet went to the default gateway"


def test_a_pod_sees_the_address_of_a_pod_on_another_node(pair: Pair) -> None:
    with pair.lab.serve("tb-c-pod-b", "tcp", 80, "b"):
        assert pair.lab.ask("tb-c-pod-a", "tcp", str(POD_B), 80) == f"b {POD_A}"


def test_a_process_of_a_node_reaches_pods_of_every_node(pair: Pair) -> None:
    with pair.lab.serve("tb-c-pod-b", "tcp", 80, "b"):
        for client in ("tb-c-a", "tb-c-b"):
            assert pair.lab.ask(client, "tcp", str(POD_B), 80).startswith("b ")


def test_a_pod_appears_under_its_nodes_address_outside_the_pod_network(pair: Pair) -> None:
    with pair.lab.serve("tb-c-b", "tcp", 80, "node"), pair.lab.serve("tb-c-switch", "tcp", 80, "switch"):
        assert pair.lab.ask("tb-c-pod-a", "tcp", str(NODE_B), 80) == "node 198.18.0.11"
        assert pair.lab.ask("tb-c-pod-a", "tcp", "198.18.0.1", 80) == "switch 198.18.0.11"


def test_a_node_that_left_has_no_entry_any_more(pair: Pair) -> None:
    pair.backends["a"].sync([])
    links = pair.lab.links("tb-c-a")
    device = pair.backends["a"].device
    assert links.routes(device or "eth0", protocol=4 if device else 84) == {}
    if device:
        assert (links.neighbours(device), links.fdb(device)) == ({}, {})
    assert pair.echo("tb-c-pod-a", POD_A, POD_B, 100) == {POD_B: "no answer"}


def test_whatever_was_deleted_by_hand_is_back_after_the_next_sync(pair: Pair) -> None:
    links = pair.lab.links("tb-c-a")
    device = pair.backends["a"].device
    if device:
        links.delete_link(device)
    else:
        links.set_routes("eth0", {}, protocol=84)
    assert pair.echo("tb-c-pod-a", POD_A, POD_B, 100) == {POD_B: "no answer"}
    pair.backends["a"].sync([pair.nodes["b"]])
    assert pair.echo("tb-c-pod-a", POD_A, POD_B, pair.mtu) == {}


def test_a_sync_that_changes_nothing_interrupts_nothing(pair: Pair) -> None:
    links = pair.lab.links("tb-c-a")
    before = links.links()
    pair.backends["a"].sync([pair.nodes["b"]])
    assert links.links() == before


def test_a_backend_torn_down_leaves_the_nodes_own_routes(pair: Pair) -> None:
    for _ in range(2):
        pair.backends["a"].teardown()
    links = pair.lab.links("tb-c-a")
    assert {link.name for link in links.links()} >= {"eth0", "cni0"}
    assert "flannel.1" not in {link.name for link in links.links()}
    assert IPv4Network("0.0.0.0/0") in links.routes("eth0")
    assert links.routes("eth0", protocol=84) == {}
