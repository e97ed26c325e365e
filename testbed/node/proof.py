"""The proof that the network carries what it promises: full-size packets to every peer, none of them in pieces.

Two to each: of the underlay's MTU from node address to node address, and of the pods' MTU from bridge to bridge, which
takes the way of a pod's packet. Each node proves its own sending side; the receiver's proof is its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from testbed.api.objects import Object, now
from testbed.network.nodenet import NodeNet
from testbed.node.handles import Echo
from testbed.node.network import Place

CONDITION = "NetworkUnavailable"


@dataclass(frozen=True)
class Proof:
    """Which peers were reached, and what became of the packets to the others."""

    place: Place
    reached: frozenset[NodeNet]
    failures: Sequence[str] = ()

    @property
    def is_complete(self) -> bool:
        """Every peer was reached."""
        return self.reached.issuperset(self.place.peers)

    def condition(self) -> Object:
        """The Node condition NetworkUnavailable, without its transition time."""
        underlay, network = self.place.spec.underlay, self.place.spec.network
        sizes = f"{underlay.mtu} bytes on the underlay and {network.pod_mtu} bytes between pods ({network.backend})"
        if not self.is_complete:
            message = f"no full-size packet: {'; '.join(self.failures)}"
            return _condition("True", "FullSizePacketsLost", message)
        names = ", ".join(peer.name for peer in self.place.peers) or "no other node, there is none"
        return _condition("False", "FullSizePacketsArrive", f"{sizes} arrive whole at: {names}")


def prove(echo: Echo, place: Place, reached: Iterable[NodeNet], *, timeout_s: float) -> Proof:
    """Probe the peers that were not reached before; blocks twice `timeout_s` at the most."""
    known = frozenset(reached).intersection(place.peers)
    missing = [peer for peer in place.peers if peer not in known]
    node, spec = place.node, place.spec
    outer = {peer.underlay: peer for peer in missing}
    inner = {peer.gateway: peer for peer in missing}
    failures = [
        *_failures(outer, echo(node.underlay, list(outer), spec.underlay.mtu, timeout_s=timeout_s), "underlay"),
        *_failures(inner, echo(node.gateway, list(inner), spec.network.pod_mtu, timeout_s=timeout_s), "pods"),
    ]
    lost = {peer for peer, _ in failures}
    said = [text for _, text in failures]
    return Proof(place, known | {peer for peer in missing if peer not in lost}, said)


def with_condition(node: Object, condition: Object) -> Object:
    """The Node with this condition in place of the one of its type; its transition time moves with its status only."""
    status = node.get("status") or {}
    others = [each for each in status.get("conditions") or () if each.get("type") != condition["type"]]
    before: Mapping[str, Any] = next(
        (each for each in status.get("conditions") or () if each.get("type") == condition["type"]), {}
    )
    since = before.get("lastTransitionTime") if before.get("status") == condition["status"] else None
    complete = {**condition, "lastTransitionTime": since or now()}
    return {**node, "status": {**status, "conditions": [*others, complete]}}


def _failures(
    peers: Mapping[IPv4Address, NodeNet], answers: Mapping[IPv4Address, str], path: str
) -> list[tuple[NodeNet, str]]:
    return [(peers[at], f"{peers[at].name} ({path} {at}: {why})") for at, why in answers.items()]


def _condition(status: str, reason: str, message: str) -> Object:
    return {
        "type": CONDITION,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now(),
    }
