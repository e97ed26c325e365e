"""Proxy mode `ipvs`: the kernel's own load balancer chooses the endpoint.

The path of a new connection from a pod, or from a process of the node itself:

    10.96.0.10:80 ─ rules: let through ─▶ local, because bound to kube-ipvs0 ─▶ virtual server, round robin
                                          ─▶ 10.244.2.7:8080 ─ rules: masqueraded where it must be ─▶

As with kube-proxy every address of a Service is bound to one device, so that the kernel hands packets for it to IPVS;
every port is a virtual server, every endpoint a real server of weight 1; what IPVS cannot decide is decided by a table
of nftables (`ipvs_rules`; kube-proxy: iptables with sets). One Service costs messages in proportion to its own size.

An endpoint that goes gets weight 0 and is deleted when its last connection is over (`ipvs_drain`). So are all of them
when another mode takes over: IPVS alone knows where its connections lead, so their virtual servers and addresses stay
until then, while the other mode, which translates before anything is handed to IPVS, serves all new ones.

What IPVS cannot do, and this mode therefore does not:

- With externalTrafficPolicy Local everybody is sent to endpoints of this node, also the cluster's own pods and nodes,
  which elsewhere reach all endpoints: one virtual server has one list of real servers. `explain` says so.
- With affinity a client keeps its endpoint until its last connection has been forgotten, two minutes after its end,
  however short the timeout. It may have one by the ClusterIP and another one by the node port: each virtual server
  remembers its own clients.
- Every address of a Service answers pings, because it is the node's own.
- A connection on which nothing is said for 15 minutes is forgotten (IPVS' own default; connection tracking: 5 days).

What others may rely on: all virtual servers of the node, the device and the tables are ours alone; nothing is marked.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface

from testbed.api.objects import Key
from testbed.errors import KernelError
from testbed.kernel.ipvs import CONNTRACK, Ipvs
from testbed.kernel.ipvs_wire import Real, Server
from testbed.kernel.links import Links, Nft
from testbed.proxy import ipvs_rules as rules
from testbed.proxy import ipvs_servers as wanted
from testbed.proxy.claims import Claims
from testbed.proxy.ipvs_drain import Drain, leave
from testbed.proxy.ipvs_explain import Found
from testbed.proxy.ipvs_servers import Fact, Facts, Node, Serving, Value
from testbed.proxy.virtualport import Here, Ports, VirtualPort

log = logging.getLogger(__name__)

DEVICE = "kube-ipvs0"
SYSCTLS = {
    CONNTRACK: "1",
    # A connection whose client comes back with the same port is scheduled anew, also to where it was not before.
    "net.ipv4.vs.conn_reuse_mode": "1",
    # UDP clients of an endpoint that has gone move on with their next packet.
    "net.ipv4.vs.expire_nodest_conn": "1",
    # So do clients with affinity, once their endpoint has weight 0.
    "net.ipv4.vs.expire_quiescent_template": "1",
    # Nobody on the underlay may take this node for the owner of an address that every node has.
    "net.ipv4.conf.all.arp_ignore": "1",
    "net.ipv4.conf.all.arp_announce": "2",
}
POD_DEVICES = "veth"
"""How the names of the nodes' ends of pods' links begin; see network.podlink."""
_CHUNK = 6
"""Statements to a transaction, about 1,500 elements: what libnftables parses takes a hundred times its length."""


class IpvsMode:
    """See `Mode`."""

    def __init__(self, nft: Nft, ipvs: Ipvs, links: Links) -> None:
        self._nft, self._ipvs, self._links = nft, ipvs, links
        self._node: Node | None = None
        self._table = rules.TABLE
        self._claims: Claims[Fact, Value] = Claims()
        self._drain = Drain(self._ipvs)
        self._count = 0
        """Virtual servers there should be, those that drain included."""
        self._left = ""
        """The rules with which it was left by `teardown`."""

    def load(self, ports: Ports, here: Here) -> None:
        """See Mode. What is there stays as far as it is wanted, so connections notice nothing."""
        self._ipvs.set_parameters(SYSCTLS)
        self._links.ensure_dummy(DEVICE)
        self._node = Node(here, node_addresses(self._links, here))
        self._claims, self._drain = Claims(), Drain(self._ipvs)
        for service, each in ports.items():
            self._claims.add(service, wanted.facts(each, self._node))
        after = self._claims.settled()
        self._set_servers(self._present(), wanted.servers(after))
        self._bind(wanted.addresses(after))
        self._load_rules(wanted.elements(after), here)
        self._unbind(self._bound() - wanted.addresses(after))
        self._count = self._ipvs.count()

    def change(self, before: Ports, after: Ports, which: Collection[Key]) -> bool:
        """See Mode. First of all what has drained is deleted: not what only now begins to."""
        if self._node is None:
            return False
        self._finish_draining()
        if not which:
            return True
        old, new = self._reclaimed(before, after, which)
        self._set_servers(wanted.servers(old), wanted.servers(new))
        self._bind(wanted.addresses(new) - wanted.addresses(old))
        self._load_statements(list(rules.change(self._table, wanted.elements(old), wanted.elements(new))))
        self._unbind(wanted.addresses(old) - wanted.addresses(new))
        return True

    def was_edited(self) -> bool:
        """See Mode. Seen is every transaction of nftables, and another number of virtual servers; what somebody does to
        real servers or to bound addresses is not, and heals with the next `load`: reading it costs as much."""
        is_edited = self._nft.was_edited()
        return is_edited or self._ipvs.count() != self._count

    def differences(self, ports: Ports) -> list[str]:
        """See Mode."""
        if self._node is None:
            return ["+ everything: this mode has not been loaded"]
        claims: Claims[Fact, Value] = Claims()
        for service, each in ports.items():
            claims.add(service, wanted.facts(each, self._node))
        return self._found().compare(self._node.here, claims.settled())

    def explain(self, port: VirtualPort) -> list[str]:
        """See Mode."""
        return [] if self._node is None else self._found().explain(port, self._node)

    def teardown(self) -> bool:
        """See Mode. False while a connection needs a virtual server; it is then deleted at a later call."""
        self._node = None
        try:
            staying = leave(self._ipvs) if self._ipvs.count() else []
            kept = {server.address for server in staying}
            self._leave_addresses(kept)
            self._leave_rules(rules.draining(sorted(map(str, kept))))
        except KernelError as error:
            log.warning("mode ipvs cannot leave yet: %s", error)
            return False
        return not staying

    def _leave_addresses(self, kept: set[IPv4Address]) -> None:
        if kept:
            self._links.delete_addresses(DEVICE, _hosts(self._bound() - kept))
        else:
            self._links.delete_link(DEVICE)

    def _leave_rules(self, script: str) -> None:
        if script != self._left:
            self._nft.load(script)
            self._left = script

    def _reclaimed(self, before: Ports, after: Ports, which: Iterable[Key]) -> tuple[Facts, Facts]:
        """What stood for these Services, and what does now that their claims have changed."""
        assert self._node
        gone = {each: wanted.facts(before.get(each, ()), self._node) for each in which}
        come = {each: wanted.facts(after.get(each, ()), self._node) for each in which}
        touched = {fact for found in (*gone.values(), *come.values()) for fact in found}
        old = self._claims.settled(touched)
        for service in gone:
            self._claims.remove(service, gone[service])
            self._claims.add(service, come[service])
        return old, self._claims.settled(touched)

    def _present(self) -> dict[Server, Serving]:
        """What the kernel serves now. What drains there already, goes on draining."""
        found: dict[Server, Serving] = {}
        for server, persistence_s in self._ipvs.servers().items():
            reals = self._ipvs.reals(server)
            found[server] = Serving(persistence_s, frozenset(real for real, state in reals.items() if state.weight))
            self._drain.begin((server, real) for real, state in reals.items() if not state.weight)
        return found

    def _set_servers(self, before: dict[Server, Serving], after: dict[Server, Serving]) -> None:
        made = {
            server: serving.persistence_s
            for server, serving in after.items()
            if server not in before or before[server].persistence_s != serving.persistence_s
        }
        new = [server for server in made if server not in before and server not in self._drain]
        coming, leaving = list(_more(before, after)), list(_more(after, before))
        self._ipvs.ensure_servers(made)
        self._ipvs.ensure_reals(coming, weight=1)
        self._drain.cancel(coming)
        self._drain.begin(leaving)
        gone = [each for each in before if each not in after and each not in self._drain]
        self._ipvs.delete_servers(gone)
        self._count += len(new) - len(gone)

    def _finish_draining(self) -> None:
        gone = [server for server in self._drain.finish() if server not in self._claims]
        self._ipvs.delete_servers(gone)
        self._count -= len(gone)
        self._unbind({server.address for server in gone})

    def _bind(self, addresses: Iterable[IPv4Address]) -> None:
        self._links.ensure_addresses(DEVICE, _hosts(addresses))

    def _unbind(self, addresses: set[IPv4Address]) -> None:
        """But for those that others claim, or that connections still go through."""
        draining = self._drain.addresses
        gone = [each for each in addresses if each not in self._claims and each not in draining]
        if gone:
            self._links.delete_addresses(DEVICE, _hosts(gone))

    def _found(self) -> Found:
        return Found(self._nft, self._ipvs, self._links, self._table, DEVICE)

    def _bound(self) -> set[IPv4Address]:
        return {address.ip for address in self._links.addresses(DEVICE)}

    def _load_rules(self, elements: dict[rules.Name, str], here: Here) -> None:
        """In one transaction, or in a second table beside the first, which takes over in the last of several."""
        is_small = len(elements) <= _CHUNK * rules.UNIT
        is_first_in_use = not is_small and bool(self._nft.list(f"chain ip {rules.TABLE} nat-postrouting"))
        old, new = rules.TABLES if is_first_in_use else reversed(rules.TABLES)
        start = rules.delete(new) + rules.skeleton(new, here)
        end = rules.delete(old) + rules.hooks(new)
        statements = [start, *rules.change(new, {}, elements), end]
        self._load_statements(["".join(statements)] if is_small else statements)
        self._table, self._left = new, ""

    def _load_statements(self, statements: list[str]) -> None:
        for at in range(0, len(statements), _CHUNK):
            self._nft.load("".join(statements[at : at + _CHUNK]))


def node_addresses(links: Links, here: Here) -> frozenset[IPv4Address]:
    """Where node ports are served: by default, as in kube-proxy's mode of this name, at every address of the node but
    loopback's. Pods' ends of their links have none."""
    devices = [link.name for link in links.links() if link.name not in ("lo", DEVICE)]
    own = {address.ip for name in devices if not name.startswith(POD_DEVICES) for address in links.addresses(name)}
    chosen = here.node_port_addresses
    return frozenset(each for each in own if not chosen or any(each in network for network in chosen))


def _hosts(addresses: Iterable[IPv4Address]) -> list[IPv4Interface]:
    return [IPv4Interface((address, 32)) for address in sorted(addresses)]


def _more(before: Mapping[Server, Serving], after: Mapping[Server, Serving]) -> Iterator[tuple[Server, Real]]:
    """The real servers that are there after, and were not before."""
    for server, serving in after.items():
        there = before[server].reals if server in before else frozenset()
        yield from ((server, real) for real in sorted(serving.reals - there))
