"""Does each variant's traffic take the path that its name says? Judged by the packets on the client's node. Pure.

vxlan, pod to pod     at least one packet per request in a tunnel between the two nodes, with the cluster's VNI and
                      the two pods' addresses inside
everything else       at least one packet per request, and none in a tunnel
one node              none at all: nothing has to leave it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

PROVEN, UNPROVEN, DISPROVED = "proven", "path unproven", "disproved"
REQUESTS = 50
"""How many requests a path check makes."""
TUNNELS = ("vxlan",)
"""Backends that put pod packets into others."""


@dataclass(frozen=True)
class Ends:
    """What the packets of a variant should look like on the wire."""

    source: str
    """The client's address; empty where it may be rewritten on the way out."""
    target: str
    """The address of the endpoint, behind any Service."""
    port: int
    crosses: bool
    """Whether the two ends are on different nodes."""
    tunnel: tuple[str, str, int] | None
    """Underlay addresses of the two nodes and the VNI, where the packets must be in a tunnel."""


@dataclass(frozen=True)
class PathProof:
    """What a path check found: `status` is one of the three constants, `detail` a sentence."""

    status: str
    detail: str

    def to_json(self) -> dict[str, Any]:
        """A JSON document."""
        return asdict(self)


def prove(ends: Ends, flows: Iterable[Mapping[str, Any]], requests: int) -> PathProof:
    """Judge the flows that a probe counted on the client's node while `requests` were made."""
    mine = [flow for flow in flows if flow["target"] == ends.target and flow["target_port"] == ends.port]
    tunnelled = sum(flow["frames"] for flow in mine if flow["vni"] is not None)
    plain = sum(flow["frames"] for flow in mine if flow["vni"] is None and ends.source in ("", flow["source"]))
    if not ends.crosses:
        good = not tunnelled and not plain
        return _proof(good, f"{plain + tunnelled} packets left the node for {requests} requests within it")
    if ends.tunnel is None:
        sentence = f"{plain} plain packets and {tunnelled} in a tunnel for {requests} requests"
        return _proof(plain >= requests and not tunnelled, sentence)
    right = sum(flow["frames"] for flow in mine if _in_tunnel(flow, ends))
    outer = f"{ends.tunnel[0]} → {ends.tunnel[1]}, VNI {ends.tunnel[2]}"
    sentence = f"{right} packets in VXLAN ({outer}) and {plain + tunnelled - right} elsewhere for {requests} requests"
    return _proof(right >= requests and not plain and tunnelled == right, sentence)


def _in_tunnel(flow: Mapping[str, Any], ends: Ends) -> bool:
    return (flow["outer_source"], flow["outer_target"], flow["vni"]) == ends.tunnel and (
        ends.source in ("", flow["source"])
    )


def _proof(good: bool, sentence: str) -> PathProof:
    return PathProof(PROVEN if good else DISPROVED, sentence)
