"""What the pod network asks of a node's kernel parameters."""

from __future__ import annotations

from pathlib import Path

from testbed.kernel.sysctl import set_sysctls

REQUIRED = {
    "net.ipv4.ip_forward": "1",
    # Replies from a pod to another node's own address take another way back than the question came. Loose mode (2)
    # would let them pass too, for one more look into the routes at every packet: 0.8 µs of a round trip of 33 µs.
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    # Pods of one node talk through the gateway although they could see each other; that is how it is meant.
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
}
"""A node without one of these carries no pod traffic as it should."""

WHERE_PRESENT = {
    # Where br_netfilter is loaded, frames between ports of a bridge would pass the service rules a second time.
    "net.bridge.bridge-nf-call-iptables": "0",
    # A packet outside the window must not bypass translation and reach the client from the wrong address.
    "net.netfilter.nf_conntrack_tcp_be_liberal": "1",
}
"""These exist only once their module is loaded, and not in every user namespace."""


def ensure_sysctls(netns: Path | None) -> None:
    """Set all of a node's parameters; KernelError names one that cannot be set."""
    set_sysctls(netns, REQUIRED)
    set_sysctls(netns, WHERE_PRESENT, missing_ok=True)
