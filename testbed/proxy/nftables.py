"""Mode `nftables`: virtual ports as nftables rules, with one endpoint map that all Services share.

The path of a new connection from a pod (prerouting) or from a process of the node itself (output):

    10.96.0.10:80 ─ dispatch ─ map services ─▶ chain lb-3 ─ random slot 0…2 ─ map endpoints ─▶ 10.244.2.7:8080

Replies, and every later packet of the connection, follow conntrack and see no rule of this table.

A Service costs elements, never rules: one in `services` for each address and port at which it is reached (ClusterIP,
external and load balancer addresses, node port at the node's address), one in `endpoints` for each of these and each
endpoint, and one in `cluster-ips`. There is a chain for each *number* of endpoints, made when a Service first has so
many, so adding, scaling and removing a Service is adding and deleting elements. Only Services that ask for more have
more elements, on a longer way:

    policy Local      services ─▶ local ─ pods, this node: map inside ─▶ lb-N;  others: map outside ─▶ local-N
    source ranges     services ─▶ guard ─ set allowed-sources ─ map guarded ─▶ lb-N or local;  others are dropped
    session affinity  services ─▶ sticky ─ map clients ─▶ the client's endpoint, if it still is one;  or else
                      map pickers ─▶ pick-N ─ map slots ─▶ an endpoint, which map clients keeps from now on

- What is in `cluster-ips` but not in `services` has no endpoint, or names a port that does not exist: it is refused at
  once, TCP with a reset (ICMP errors are rate limited). What is in the service CIDR but no ClusterIP is dropped. This
  is done where the destination is looked up, in the nat chains, and not in a filter chain (as kube-proxy does, for
  kernels before 5.9): nat chains see the first packet of a connection, filter chains all of them, which made 0.8 µs of
  a round trip of 33 µs between two nodes.
- Masqueraded is, in postrouting and by what the connection was addressed to: what came to a public address (map
  `public`; with policy Local only from this node itself), what came to a ClusterIP from outside the cluster, and a pod
  that reaches itself (hairpin). The last can only be pods of this node, so the set is made once, from its pod CIDR.
- Affinity needs two numbers at once: the packet's mark is the Service port while it is looked up (and 0 again before
  the packet goes on), the connection's mark is the endpoint, and stays. They follow from addresses alone, so entries
  mean the same to the next daemon.

What others may rely on: the tables are ours alone; nothing is accepted on behalf of others; no packet leaves marked;
all chains are nat, at dstnat and srcnat.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Address
from itertools import islice

from testbed.api.objects import Key
from testbed.errors import KernelError
from testbed.kernel.links import Links, Nft
from testbed.proxy import nftables_elements, nftables_listing, nftables_rules, nftables_words
from testbed.proxy.claims import Claims
from testbed.proxy.nftables_elements import Elements
from testbed.proxy.virtualport import Here, Ports, VirtualPort

log = logging.getLogger(__name__)

_CHUNK = 20_000
"""Characters to a transaction, about 500 elements: a ninth of what fits into the socket buffer that the kernel allows a
plain user by default (net.core.wmem_max, 208 KiB, doubled), 2 MB of memory in libnftables, and no slower than more."""
_NOBODY = Key("", "")
_BATCH = 250
"""Services whose elements are computed together."""


class NftablesMode:
    """See `Mode`. Two tables take turns: see `load`."""

    def __init__(self, nft: Nft, links: Links) -> None:
        self._nft, self._links = nft, links
        self._here: Here | None = None
        self._addresses: frozenset[IPv4Address] = frozenset()
        self._table = nftables_rules.TABLE
        self._chains: set[str] = set()
        self._claims: Claims[str, Key] = Claims()

    def load(self, ports: Ports, here: Here) -> None:
        """See Mode.

        A table is put together beside the one in use, in transactions of bounded size, and takes over in the last one:
        new connections meet the old rules or the new. Clients with affinity keep their endpoints.
        """
        self._here, self._addresses = here, node_addresses(self._links, here)
        old = self._in_use()
        self._table = next(table for table in nftables_rules.TABLES if table != old)
        self._chains, self._claims = set(nftables_rules.FIRST_SLOTS), Claims()
        for service in ports:
            self._claims.add(service, dict.fromkeys(self._keys([service], ports), service))
        self._nft.load(nftables_rules.delete(self._table) + nftables_rules.skeleton(self._table, here))
        self._load_all(self._everything(ports))
        self._load_all(self._clients_of(old))
        self._nft.load(nftables_rules.delete(old) + nftables_rules.hooks(self._table))

    def change(self, before: Ports, after: Ports, which: Collection[Key]) -> bool:
        """See Mode."""
        if self._here is None:
            return False
        old, new = self._difference(before, after, which)
        try:
            self._load_all([*self._chains_for(new), *nftables_elements.change(self._table, old, new)])
        except KernelError as error:
            log.warning("the rules are not as they were left, loading all of them: %s", error)
            return False
        return True

    def was_edited(self) -> bool:
        """See Mode; a node that has another address now, where node ports are served, counts as edited."""
        is_edited = self._nft.was_edited()
        return is_edited or (self._here is not None and node_addresses(self._links, self._here) != self._addresses)

    def differences(self, ports: Ports) -> list[str]:
        """See Mode."""
        if self._here is None:
            return [f"+ table ip {self._table}"]
        table = f"table ip {self._table}"
        rules = nftables_rules.fixed_chains(self._here) | nftables_rules.HOOKS
        rules |= {name: nftables_rules.counted_chain(name) for name in self._chains}
        found = nftables_words.differing_rules(rules, nftables_listing.chains(self._nft.list(table, terse=True)))
        there = {name: self._listed(name) for name in (*nftables_rules.MAPS, *nftables_rules.SETS)}
        for services in _batches(ports):
            found += nftables_words.take_off(there, self._elements(services, ports))
        return found + nftables_words.left_over(there)

    def explain(self, port: VirtualPort) -> list[str]:
        """See Mode."""
        wanted = nftables_elements.elements([port], self._addresses)
        there = {name: self._listed(name) for name in {"services", *nftables_elements.by_map(wanted)}}
        clients = self._clients(self._table) if port.affinity_s else []
        return nftables_words.path(port, self._table, self._addresses, there, clients)

    def teardown(self) -> bool:
        """See Mode."""
        self._here = None
        for table in nftables_rules.TABLES:
            self._nft.load(nftables_rules.delete(table))
        return True

    def _in_use(self) -> str:
        """The table that packets enter; where none is, the one that `load` shall not take."""
        used = nftables_listing.tables_with_chain(self._nft.list("chains ip"), "nat-prerouting")
        return next((each for each in nftables_rules.TABLES if each in used), nftables_rules.OTHER_TABLE)

    def _everything(self, ports: Ports) -> Iterator[str]:
        for services in _batches(ports):
            wanted = self._elements(services, ports)
            yield from self._chains_for(wanted)
            yield from nftables_elements.change(self._table, {}, wanted)

    def _chains_for(self, wanted: Elements) -> Iterator[str]:
        missing = nftables_elements.chains_of(wanted) - self._chains
        self._chains |= missing
        if missing:
            yield nftables_rules.chains(self._table, sorted(missing))

    def _clients_of(self, table: str) -> Iterator[str]:
        entries = iter(self._clients(table))
        while some := list(islice(entries, _BATCH)):
            listed = ", ".join(str(client) for client in some)
            yield f"add element ip {self._table} {nftables_rules.CLIENTS} {{ {listed} }}\n"

    def _clients(self, table: str) -> list[nftables_listing.Client]:
        return nftables_listing.clients(self._nft.list(f"map ip {table} {nftables_rules.CLIENTS}"))

    def _elements(self, services: Collection[Key], ports: Ports) -> Elements:
        return self._owned(services, ports, self._claims.settled(self._keys(services, ports)))

    def _difference(self, before: Ports, after: Ports, which: Collection[Key]) -> tuple[Elements, Elements]:
        """The elements of these Services, and of those with which they share a public key, before and after."""
        touched = self._keys(which, before) | self._keys(which, after)
        had = self._claims.settled(touched)
        for service in which:
            self._claims.remove(service, self._keys([service], before))
            self._claims.add(service, dict.fromkeys(self._keys([service], after), service))
        has = self._claims.settled(touched)
        concerned = {*which, *had.values(), *has.values()}
        same = self._claims.settled(self._keys(concerned, after) - touched)
        return self._owned(concerned, before, {**same, **had}), self._owned(concerned, after, {**same, **has})

    def _owned(self, services: Collection[Key], ports: Ports, owners: Mapping[str, Key]) -> Elements:
        every = [port for each in services for port in ports.get(each, ())]
        return nftables_elements.elements(every, self._addresses, {**owners, **self._reserved(every)})

    def _reserved(self, every: Iterable[VirtualPort]) -> dict[str, Key]:
        """External addresses out of the service CIDR: those belong to ClusterIPs."""
        return {
            nftables_elements.key_of(address, port): _NOBODY
            for port in every
            for address in port.public_ips
            if self._here and address in self._here.service_cidr
        }

    def _keys(self, services: Collection[Key], ports: Ports) -> set[str]:
        every = (port for each in services for port in ports.get(each, ()))
        return {key for port in every for key in nftables_elements.public_keys(port, self._addresses)}

    def _listed(self, name: str) -> dict[str, str]:
        kind = "set" if name in nftables_rules.SETS else "map"
        return nftables_listing.elements(self._nft.list(f"{kind} ip {self._table} {name}"))

    def _load_all(self, statements: Iterable[str]) -> None:
        """In as few transactions as their size allows."""
        waiting: list[str] = []
        size = 0
        for statement in statements:
            if waiting and size + len(statement) > _CHUNK:
                self._nft.load("".join(waiting))
                waiting, size = [], 0
            waiting.append(statement)
            size += len(statement)
        if waiting:
            self._nft.load("".join(waiting))


def node_addresses(links: Links, here: Here) -> frozenset[IPv4Address]:
    """Where node ports are served: at the node's primary address, or at those of its addresses that the networks of
    `here` contain. Never at a loopback address: the kernel drops what comes from there to elsewhere."""
    if not here.node_port_addresses:
        return frozenset({here.address})
    every = {each.ip for link in links.links() for each in links.addresses(link.name)}
    return frozenset(
        each for each in every if not each.is_loopback and any(each in network for network in here.node_port_addresses)
    )


def _batches(ports: Ports) -> Iterator[list[Key]]:
    keys = iter(ports)
    while some := list(islice(keys, _BATCH)):
        yield some
