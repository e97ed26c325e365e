"""Which tracked UDP flows no longer lead where their Service points. Pure.

A UDP client that keeps its source port has no new connection that could be sent elsewhere: its entry must go. As in
kube-proxy (pkg/proxy/conntrack), once the rules are committed, an entry is stale when its endpoint no longer serves, or
when it was made before the Service had endpoints and so was never translated. Traffic policies and topology do not
count: a flow may stay where no new one would go. A Service with no serving endpoint is left alone: its flows may come
back to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from testbed.kernel.conntrack import Flow
from testbed.proxy.virtualport import VirtualPort

Target = tuple[IPv4Address | None, int]
"""Where a flow was addressed to; a node port is one at any address."""


def stale_flows(flows: Iterable[Flow], ports: Iterable[VirtualPort]) -> list[Flow]:
    """The flows to forget."""
    serving = _serving(ports)
    return [flow for flow in flows if flow.answers not in _endpoints_for(flow, serving)]


def _serving(ports: Iterable[VirtualPort]) -> dict[Target, set[IPv4Address]]:
    """The addresses that serve, by everything that a client may have asked."""
    found: dict[Target, set[IPv4Address]] = {}
    for port in ports:
        if port.protocol == "udp" and port.serving:
            targets: list[Target] = [(address, port.port) for address in (port.cluster_ip, *port.public_ips)]
            if port.node_port:
                targets.append((None, port.node_port))
            found |= {target: {endpoint.address for endpoint in port.serving} for target in targets}
    return found


def _endpoints_for(flow: Flow, serving: dict[Target, set[IPv4Address]]) -> set[IPv4Address]:
    for target in ((flow.destination, flow.destination_port), (None, flow.destination_port)):
        if target in serving:
            return serving[target]
    return {flow.answers}
