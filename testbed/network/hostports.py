"""hostPort: ports of a node that lead to pods on it. Pure.

    client ─▶ node 198.18.0.10:8080 ─▶ prerouting (or output, from the node itself): dnat ─▶ cni0 ─▶ pod 10.244.0.7:80

As with the CNI plugin `portmap`, and whatever the proxy's mode: the pod sees the client's own address, and a pod that
reaches itself this way is masqueraded, or it would answer itself past the node. A port of one address of the node goes
before the same port of all of them. Other than `portmap`, which sets route_localnet for it, 127.0.0.1 is left alone.
Each port costs an element of a map; a packet that is not for the node itself costs one look at the routing table.
Source: containernetworking/plugins, plugins/meta/portmap/portmap_nftables.go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from testbed.kernel.conntrack import Flow

TABLE = "testbed-hostports"
REMOVE = f"add table ip {TABLE}\ndelete table ip {TABLE}\n"
"""The script after which there is no such table."""


@dataclass(frozen=True)
class HostPort:
    """One port of a node, and where in which pod it leads."""

    protocol: str
    """tcp, udp or sctp."""
    number: int
    target: IPv4Address
    target_port: int
    host_ip: IPv4Address | None = None
    """The address of the node at which it is served; None: all but those of loopback."""


def render(ports: Collection[HostPort]) -> str:
    """The whole table as one script that replaces the one before. Each port of an address may be given once."""
    everywhere = [f"{p.protocol} . {p.number} : {p.target} . {p.target_port}" for p in ports if not p.host_ip]
    at_one = [f"{p.host_ip} . {p.protocol} . {p.number} : {p.target} . {p.target_port}" for p in ports if p.host_ip]
    pods = {f"{port.target} . {port.target}" for port in ports}
    return f"""\
{REMOVE}table ip {TABLE} {{
  map everywhere {{
    type inet_proto . inet_service : ipv4_addr . inet_service
    {_elements(everywhere)}
  }}
  map at-one-address {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
    {_elements(at_one)}
  }}
  set to-themselves {{
    type ipv4_addr . ipv4_addr
    {_elements(pods)}
  }}
  chain ports {{
    meta l4proto {{ tcp, udp, sctp }} dnat to ip daddr . meta l4proto . th dport map @at-one-address
    meta l4proto {{ tcp, udp, sctp }} dnat to meta l4proto . th dport map @everywhere
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat
    fib daddr type local jump ports
  }}
  chain output {{
    type nat hook output priority -100
    ip daddr != 127.0.0.0/8 fib daddr type local jump ports
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
    ct status dnat ip saddr . ip daddr @to-themselves masquerade fully-random
  }}
}}
"""


def stale_flows(flows: Iterable[Flow], ports: Collection[HostPort], local: Collection[IPv4Address]) -> list[Flow]:
    """The tracked UDP flows to these ports of the node's own addresses that do not lead where the port leads now.

    A client that keeps its source port has no new connection that could be sent to the pod that has come.
    """
    leads: dict[tuple[IPv4Address | None, int], IPv4Address] = {
        (port.host_ip, port.number): port.target for port in ports if port.protocol == "udp"
    }
    found = []
    for flow in flows:
        at_one, everywhere = (leads.get((at, flow.destination_port)) for at in (flow.destination, None))
        target = at_one or everywhere
        if target and flow.destination in local and flow.answers != target:
            found.append(flow)
    return found


def _elements(elements: Iterable[str]) -> str:
    listed = ", ".join(sorted(elements))
    return f"elements = {{ {listed} }}" if listed else ""
