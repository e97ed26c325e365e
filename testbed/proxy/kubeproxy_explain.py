"""The way of a new connection through kube-proxy's nftables table, in words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from testbed.proxy.kubeproxy_listing import Listing
from testbed.proxy.kubeproxy_rules import (
    FIREWALL_IPS,
    NO_ENDPOINT_NODE_PORTS,
    NO_ENDPOINT_SERVICES,
    NODE_PORTS,
    SERVICE_IPS,
)
from testbed.proxy.virtualport import VirtualPort

_MAPS = (FIREWALL_IPS, SERVICE_IPS, NODE_PORTS, NO_ENDPOINT_SERVICES, NO_ENDPOINT_NODE_PORTS)
"""In the order in which a packet meets them."""
_CHAIN = re.compile(r"goto ([^\s,]+)")
_AFFINITY = re.compile(r"update @(\S+)")


def explain(there: Listing, port: VirtualPort) -> list[str]:
    """What is there for this port: map elements, the chains they lead to, and who sticks to an endpoint."""
    keys = {f"{port.cluster_ip} . {port.protocol} . {port.port}": "ClusterIP"}
    keys |= {f"{each} . {port.protocol} . {port.port}": "external address" for each in port.external_ips}
    keys |= {f"{each} . {port.protocol} . {port.port}": "load balancer address" for each in port.load_balancer_ips}
    if port.node_port:
        keys[f"{port.protocol} . {port.node_port}"] = "node port"
    lines, chains = [], []
    for key, what in keys.items():
        found = [(name, there.elements[name][key]) for name in _MAPS if key in there.elements.get(name, ())]
        lines += [f"{what} {key}: map {name} says {verdict}" for name, verdict in found]
        lines += [] if found else [f"{what} {key}: in no map"]
        chains += [chain for _, verdict in found for chain in _CHAIN.findall(verdict)]
    return lines + list(_chains(there, chains))


def _chains(there: Listing, first: list[str]) -> Iterator[str]:
    """The rules of these chains and of those that they lead to, each once."""
    waiting, seen = list(reversed(first)), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for rule in there.rules.get(f"chain {name}", ("nothing, it is not there",)):
            yield f"chain {name}: {rule}"
            waiting += reversed(_CHAIN.findall(rule))
            for affinity in _AFFINITY.findall(rule):
                yield f"set {affinity}: {', '.join(there.elements.get(affinity, ())) or 'no client'}"
