"""The wires of one host: the switch, the control plane's link and every node's, as the spec has them.

    node a ── eth0 ═ n-… ─┐                      ┌─ n-… ═ eth0 ── node client (external)
    node b ── eth0 ═ n-… ─┤ underlay ─ switch ─ outside
    control plane ═ n-… ──┘  (bridge)  (router)  (bridge)

The switch is everybody's default gateway. It forwards between its two bridges and drops all else, so that nothing can
leave the machine through it; what comes for a load balancer's address it hands to nodes (`loadbalancers`). Each `sync`
takes the whole spec and may come at any time; what fits is not touched, so packets flow on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from testbed.errors import NotFound
from testbed.kernel import netns as namespaces
from testbed.kernel.links import Hop, Links, Nft, Peer
from testbed.kernel.netlink import NetlinkLinks
from testbed.kernel.nft import LibNft
from testbed.kernel.sysctl import has_sysctl, set_sysctls
from testbed.network.podlink import ensure_node, stable_mac
from testbed.network.sysctls import ensure_sysctls
from testbed.topology.spec import CONTROL_PLANE, ClusterSpec, NodeSpec

log = logging.getLogger(__name__)

UNDERLAY, OUTSIDE = "underlay", "outside"
"""The switch's bridges."""
PORT_PREFIX = "n-"
NODE_DEVICE = "eth0"
CONTROL_PLANE_DEVICE = "underlay"
"""Not eth0: on docker that is the one through which its port is published on 127.0.0.1."""
TABLE = "testbed-switch"
DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")
BALANCED = 85
"""The origin (RTPROT, an unassigned number) of the switch's routes to addresses of load balancers."""
ROUTER = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
}
HASH_FIELDS = "net.ipv4.fib_multipath_hash_fields"
BALANCING = {
    # A flow's gateway follows from its addresses, protocol and ports (0x1, 0x2, 0x4, 0x10, 0x20) as they are in the
    # packet. Policy 1 looks at the same, but trusts the hash that the sender's socket has noted beside the packet: on
    # one machine it comes along, another one for each socket, and a new one whenever TCP sends something again.
    HASH_FIELDS: str(0x37),
    "net.ipv4.fib_multipath_hash_policy": "3",
}
"""Linux 5.14 and later; without, a load balancer sends all that comes from one address to one node."""
RULES = f"""\
add table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
    chain forward {{
        type filter hook forward priority filter; policy drop;
        iifname {{ {UNDERLAY}, {OUTSIDE} }} oifname {{ {UNDERLAY}, {OUTSIDE} }} accept
    }}
}}
"""


def make_router() -> None:
    """Give this network namespace the kernel parameters of the switch."""
    set_sysctls(None, ROUTER)
    if has_sysctl(HASH_FIELDS):
        set_sysctls(None, BALANCING)


@dataclass(frozen=True)
class Kernel:
    """How the wiring reaches namespaces; the agent's own is the switch's."""

    links: Callable[[Path | None], Links] = NetlinkLinks
    nft: Callable[[], Nft] = LibNft
    make_router: Callable[[], None] = make_router
    make_node: Callable[[Path], None] = ensure_sysctls


@dataclass(frozen=True)
class Wire:
    """One link between the switch and a place."""

    place: str
    bridge: str
    address: IPv4Interface
    gateway: IPv4Address
    mac: str = ""
    node: NodeSpec | None = None
    """None for the control plane."""

    @property
    def port(self) -> str:
        """The name of the switch's end."""
        return PORT_PREFIX + hashlib.sha256(self.place.encode()).hexdigest()[:13]

    @property
    def device(self) -> str:
        """The name of the place's end."""
        return NODE_DEVICE if self.node else CONTROL_PLANE_DEVICE


def wires(spec: ClusterSpec, host: str) -> list[Wire]:
    """All links of a host's switch; the control plane is on the first host."""
    underlay = spec.underlay
    found = []
    if spec.hosts[0].name == host:
        address = IPv4Interface((underlay.control_plane, underlay.cidr.prefixlen))
        # A MAC of its own for ever: it may come back in another namespace, and others remember the old one for long.
        found.append(Wire(CONTROL_PLANE, UNDERLAY, address, underlay.gateway, stable_mac(underlay.control_plane)))
    for node in spec.nodes_of(host):
        bridge, gateway = (OUTSIDE, underlay.outside_gateway) if node.is_external else (UNDERLAY, underlay.gateway)
        found.append(Wire(node.name, bridge, node.address, gateway, node.mac, node))
    return found


def neighbours(spec: ClusterSpec, host: str, bridge: str) -> dict[IPv4Address, str]:
    """Who is at which MAC on the network of that bridge: the gateway first, then all places of the host.

    Known from the start, nobody asks by ARP, and the kernel's table of neighbours, which all namespaces of the machine
    share, does not count them: it would overflow (gc_thresh3, 1024) where 32 nodes know 32.
    """
    gateway = spec.underlay.gateway if bridge == UNDERLAY else spec.underlay.outside_gateway
    found = {gateway: bridge_mac(spec, host, bridge)}
    return found | {wire.address.ip: wire.mac for wire in wires(spec, host) if wire.bridge == bridge}


def bridge_mac(spec: ClusterSpec, host: str, bridge: str) -> str:
    """The MAC of the switch on that bridge."""
    underlay = spec.underlay
    return stable_mac(min(underlay.gateway, spec.host(host).switch) if bridge == UNDERLAY else underlay.outside_gateway)


class Wiring:
    """Makes the wires of one host, and keeps a handle for the devices of each of its nodes."""

    def __init__(self, host: str, place: Callable[[str], Path | None], kernel: Kernel | None = None) -> None:
        self._host = host
        self._place = place
        self._kernel = kernel or Kernel()
        self._switch = self._kernel.links(None)
        self._rules: Nft | None = None
        self._handles: dict[str, tuple[int, Links]] = {}

    def sync(self, spec: ClusterSpec) -> set[str]:
        """Make everything as the spec says; the names of the nodes that are wired: all whose holder exists.

        Must not run twice at a time. KernelError.
        """
        known = {bridge: neighbours(spec, self._host, bridge) for bridge in (UNDERLAY, OUTSIDE)}
        self._sync_switch(spec, known)
        wanted = wires(spec, self._host)
        for link in self._switch.links():
            if link.name.startswith(PORT_PREFIX) and link.name not in {wire.port for wire in wanted}:
                self._switch.delete_link(link.name)
        for name in self._handles.keys() - {wire.place for wire in wanted}:
            self._handles.pop(name)[1].close()
        return {wire.place for wire in wanted if self._sync_wire(wire, spec, known[wire.bridge]) and wire.node}

    def places(self, spec: ClusterSpec) -> dict[str, int]:
        """The namespace of each place that exists now, by its inode: another number is another namespace."""
        found = {wire.place: self._place(wire.place) for wire in wires(spec, self._host)}
        numbers = {place: namespaces.number(path) for place, path in found.items() if path}
        return {place: number for place, number in numbers.items() if number}

    def links(self, node: str) -> Links:
        """The devices of a wired node. NotFound."""
        if node not in self._handles:
            raise NotFound(f"node {node} is not wired on host {self._host}")
        return self._handles[node][1]

    def balance(self, cidr: IPv4Network | None, routes: Mapping[IPv4Network, Hop]) -> None:
        """Have the switch forward what comes for these addresses, and drop what comes for the rest of `cidr`.

        May run beside `sync`. KernelError where the switch is not wired yet.
        """
        self._switch.set_blackholes([cidr] if cidr else [], protocol=BALANCED)
        self._switch.set_routes(UNDERLAY, routes, protocol=BALANCED)

    def _sync_switch(self, spec: ClusterSpec, known: Mapping[str, Mapping[IPv4Address, str]]) -> None:
        underlay = spec.underlay
        self._kernel.make_router()
        self._switch.ensure_up("lo")
        for bridge, gateways, network in (
            (UNDERLAY, {underlay.gateway, spec.host(self._host).switch}, underlay.cidr),
            (OUTSIDE, {underlay.outside_gateway}, underlay.outside_cidr),
        ):
            self._switch.ensure_bridge(bridge, mtu=underlay.mtu, mac=bridge_mac(spec, self._host, bridge))
            self._switch.set_addresses(bridge, [IPv4Interface((gateway, network.prefixlen)) for gateway in gateways])
            others = {ip: mac for ip, mac in known[bridge].items() if ip not in gateways}
            self._switch.set_neighbours(bridge, others)
        if self._rules is None:
            self._rules = self._kernel.nft()
            self._rules.load(RULES)
        elif self._rules.was_edited():
            self._rules.load(RULES)

    def _sync_wire(self, wire: Wire, spec: ClusterSpec, known: Mapping[IPv4Address, str]) -> bool:
        netns = self._place(wire.place)
        if netns is None:
            log.info("%s has no namespace yet", wire.place)
            return False
        there = self._handle(wire.place, netns)
        if wire.node and not wire.node.is_external:
            self._kernel.make_node(netns)
        peer = Peer(wire.device, netns, wire.mac)
        self._switch.ensure_veth(wire.port, peer, mtu=spec.underlay.mtu, master=wire.bridge)
        there.ensure_up("lo")
        there.set_addresses(wire.device, [wire.address])
        there.set_routes(wire.device, _routes(wire, spec))
        there.set_neighbours(wire.device, {ip: mac for ip, mac in known.items() if ip != wire.address.ip})
        if wire.node and wire.node.pod_cidr:
            ensure_node(there, wire.node, spec.network)
        return True

    def _handle(self, place: str, netns: Path) -> Links:
        """The open handle, or a new one where the place has come back with another namespace."""
        number = namespaces.number(netns)
        known = self._handles.get(place)
        if known and known[0] == number:
            return known[1]
        if known:
            self._handles.pop(place)[1].close()
        self._handles[place] = (number, self._kernel.links(netns))
        return self._handles[place][1]


def _routes(wire: Wire, spec: ClusterSpec) -> dict[IPv4Network, Hop]:
    """To everywhere through the switch, and from the control plane to pods through their nodes: the API server's proxy
    dials pods, and the switch knows no way to them."""
    pods = {node.pod_cidr: Hop(via=node.address.ip) for node in spec.nodes if node.pod_cidr and wire.node is None}
    return {DEFAULT_ROUTE: Hop(via=wire.gateway), **pods}
