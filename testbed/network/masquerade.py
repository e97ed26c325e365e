"""Which packets leave under the node's address instead of their own. Pure.

As with flannel, and without marks:

- pod → pod, on any node: never. The receiver sees the pod.
- pod → anything outside the pod CIDR (other nodes' own addresses, the control plane, the world behind the switch):
  masqueraded, because nobody out there has a route back to a pod. A pod and its own node see each other's addresses:
  that traffic is never forwarded.
- node → pod on another node through a tunnel, where the packet was addressed to a Service: its source is the node's
  underlay address, and the answer would come back outside the tunnel. Masqueraded to the tunnel's address, so both ways
  are one. (Addressed to the pod itself, the route has chosen that source already.)

Ports are chosen at random: two clients that ask for the same one at the same moment would otherwise collide.
"""

from __future__ import annotations

from ipaddress import IPv4Network

TABLE = "testbed-masquerade"
_MULTICAST = "224.0.0.0/4"


def render(pod_cidr: IPv4Network, tunnel: str) -> str:
    """The whole table as one script that replaces the one before; `tunnel` is empty where there is none."""
    into_tunnel = f'oifname "{tunnel}" ip saddr != {pod_cidr} masquerade fully-random' if tunnel else ""
    return f"""\
add table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority 100
    ip saddr {pod_cidr} ip daddr != {{ {pod_cidr}, {_MULTICAST} }} masquerade fully-random
    {into_tunnel}
  }}
}}
"""
