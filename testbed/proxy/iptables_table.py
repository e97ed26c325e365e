"""The fixed part of kube-proxy's iptables rules: what is there without any Service, and leads to what is. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from testbed.proxy.iptables_rules import DISPATCHING, Chain
from testbed.proxy.virtualport import Here

TABLES = ("mangle", "filter", "nat")

_PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-")
"""Of the chains of Services; KUBE-XLB- is from before Kubernetes 1.24."""

CANARY = "KUBE-PROXY-CANARY"
_MARK = "0x4000/0x4000"

FIXED: dict[Chain, tuple[str, ...]] = {
    Chain("nat", "KUBE-MARK-MASQ"): (f"-j MARK --set-xmark {_MARK}",),
    Chain("nat", "KUBE-POSTROUTING"): (
        f"-m mark ! --mark {_MARK} -j RETURN",
        "-j MARK --set-xmark 0x4000/0x0",
        '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
    ),
    Chain("filter", "KUBE-FORWARD"): (
        f'-m comment --comment "kubernetes forwarding rules" -m mark --mark {_MARK} -j ACCEPT',
        '-m comment --comment "kubernetes forwarding conntrack rule" '
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ),
    **{Chain(table, CANARY): () for table in TABLES},
}
"""Chains that are the same everywhere. As with a kube-proxy that finds nf_conntrack_tcp_be_liberal set, none of them
drops invalid packets. The canary is there to be missed."""

_UNUSED = (Chain("filter", "KUBE-NODEPORTS"),)
"""Here kube-proxy accepts what asks for the health of a node, against a firewall that the nodes here do not have."""

_NEW = "-m conntrack --ctstate NEW -m comment --comment"
_OUTSIDE, _PORTALS = "kubernetes externally-visible service portals", "kubernetes service portals"
_FIREWALL = "kubernetes load balancer firewall"

JUMPS: tuple[tuple[Chain, str], ...] = (
    *(
        (Chain("filter", hook), f'{_NEW} "{_FIREWALL}" -j KUBE-PROXY-FIREWALL')
        for hook in ("INPUT", "FORWARD", "OUTPUT")
    ),
    (Chain("filter", "FORWARD"), '-m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD'),
    *((Chain("filter", hook), f'{_NEW} "{_PORTALS}" -j KUBE-SERVICES') for hook in ("FORWARD", "OUTPUT")),
    *(
        (Chain("filter", hook), f'{_NEW} "{_OUTSIDE}" -j KUBE-EXTERNAL-SERVICES')
        for hook in ("INPUT", "FORWARD", "OUTPUT")
    ),
    *((Chain("nat", hook), f'-m comment --comment "{_PORTALS}" -j KUBE-SERVICES') for hook in ("PREROUTING", "OUTPUT")),
    (Chain("nat", "POSTROUTING"), '-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'),
)
"""The rules that bring packets in, in the order in which they stand at the top of the kernel's own chains."""

_LAST = '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"'


def last_rules(here: Here, addresses: Iterable[IPv4Address]) -> tuple[str, ...]:
    """How KUBE-SERVICES ends: the way to the node ports, which are served at these addresses of the node, or at all."""
    if serves_every_address(here):
        return (f"! -d 127.0.0.0/8 {_LAST} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",)
    return tuple(f"-d {each}/32 {_LAST} -j KUBE-NODEPORTS" for each in sorted(addresses))


def serves_every_address(here: Here) -> bool:
    """Whether node ports are served at all addresses of the node but loopback: so by default."""
    return not here.node_port_addresses or any(each.prefixlen == 0 for each in here.node_port_addresses)


def is_ours(chain: Chain) -> bool:
    """Whether the chain is kube-proxy's, of whatever version."""
    return chain in FIXED or chain in DISPATCHING or chain in _UNUSED or chain.name.startswith(_PREFIXES)


def is_jump(rule: str) -> bool:
    """Whether a rule of one of the kernel's own chains leads to one of kube-proxy's."""
    return _target(rule) in _ENTRANCES


def _target(rule: str) -> str:
    return rule.rpartition("-j ")[2]


_ENTRANCES = {_target(rule) for _, rule in JUMPS} | {"KUBE-NODEPORTS"}
