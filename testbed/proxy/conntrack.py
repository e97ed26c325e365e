"""Which tracked UDP flows no longer lead where their Service points. Pure.

A UDP client that keeps its source port has no new connection that could be sent elsewhere: its entry must go. As in
kube-proxy, once the rules are committed, an entry is stale when its endpoint no longer serves, or when it was
made before the Service had endpoints and so was never translated. A Service with no serving endpoint is left alone: its
flows may come back to it.
"""

from __future__ import annotations

from collections.abc import Iterable

from testbed.kernel.conntrack import Flow
from testbed.proxy.servicemap import VirtualPort


def stale_flows(flows: Iterable[Flow], ports: Iterable[VirtualPort]) -> list[Flow]:
    """The flows to forget."""
    serving = {
        (port.address, port.port): {endpoint.address for endpoint in port.serving}
        for port in ports
        if port.protocol == "udp" and port.serving
    }
    return [
        flow
        for flow in flows
        if flow.answers not in serving.get((flow.destination, flow.destination_port), {flow.answers})
    ]
