"""What a node says about the packets it sent to its peers."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from testbed.network.nodenet import NodeNet
from testbed.node.network import Place
from testbed.node.proof import prove, with_condition
from testbed.topology.load import load_topology
from testbed.topology.plan import plan

SPEC = plan(load_topology(Path(__file__).parents[3] / "topologies" / "three-nodes.yaml").model, runtime="netns")


def node(at: int) -> NodeNet:
    cidr = IPv4Network(f"10.244.{at}.0/24")
    return NodeNet(f"n{at}", IPv4Address(f"198.18.0.{at}"), cidr, f"02:00:00:00:00:0{at}", "vxlan")


PLACE = Place(node(1), [node(2), node(3)], SPEC)


class FakeEcho:
    """A network that loses packets to some addresses."""

    def __init__(self, *lost: str) -> None:
        self.lost = set(map(IPv4Address, lost))
        self.sent: list[tuple[str, list[str], int]] = []

    def __call__(
        self,
        source: IPv4Address,
        targets: Collection[IPv4Address],
        size: int,
        *,
        timeout_s: float,
    ) -> dict[IPv4Address, str]:
        self.sent.append((str(source), [str(target) for target in targets], size))
        return {target: "no answer" for target in targets if target in self.lost}


def test_each_peer_is_sent_a_full_size_packet_on_the_underlay_and_one_between_pods() -> None:
    echo = FakeEcho()
    proof = prove(echo, PLACE, (), timeout_s=1)
    assert echo.sent == [
        ("198.18.0.1", ["198.18.0.2", "198.18.0.3"], SPEC.underlay.mtu),
        ("10.244.1.1", ["10.244.2.1", "10.244.3.1"], SPEC.network.pod_mtu),
    ]
    condition = proof.condition()
    assert (condition["status"], condition["reason"]) == ("False", "FullSizePacketsArrive")
    assert condition["message"].endswith("arrive whole at: n2, n3")


@pytest.mark.parametrize("lost", ["198.18.0.3", "10.244.3.1"])
def test_one_lost_packet_makes_the_network_unavailable_and_says_which(lost: str) -> None:
    proof = prove(FakeEcho(lost), PLACE, (), timeout_s=1)
    condition = proof.condition()
    assert (condition["status"], condition["reason"]) == ("True", "FullSizePacketsLost")
    assert f"n3 ({'underlay' if lost.startswith('198') else 'pods'} {lost}: no answer)" in condition["message"]
    assert proof.reached == {node(2)}


def test_peers_reached_before_are_not_asked_again() -> None:
    echo = FakeEcho()
    assert prove(echo, PLACE, {node(2), node(9)}, timeout_s=1).is_complete
    assert echo.sent[0][1] == ["198.18.0.3"]


def test_a_node_alone_has_nothing_to_prove() -> None:
    assert prove(FakeEcho(), Place(node(1), [], SPEC), (), timeout_s=1).condition()["status"] == "False"


def test_a_condition_replaces_the_one_of_its_type_and_keeps_its_time_while_its_status_stays() -> None:
    ready = {"type": "Ready", "status": "True"}
    before = {"type": "NetworkUnavailable", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    found = {"metadata": {"name": "n1"}, "status": {"conditions": [before, ready]}}
    same = with_condition(found, {"type": "NetworkUnavailable", "status": "False", "message": "new"})
    assert same["status"]["conditions"] == [ready, {**before, "message": "new"}]
    other = with_condition(found, {"type": "NetworkUnavailable", "status": "True"})
    assert other["status"]["conditions"][1]["lastTransitionTime"] > "2026-01-01T00:00:00Z"
