"""The mode `nftables-kubeproxy`: the table of the real kube-proxy, to learn from and to compare with.

Like kube-proxy it rewrites the chains of the Services that changed, and brings elements up to date by difference. It
knows what it has written, and so never lists the table for a change. What a change costs beyond that is libnftables'
own: it asks the kernel for all sets before it adds a rule or an element. Most of a load is spent in the kernel, which
compares the name of each Service's anonymous map with those of all others.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address

from testbed.api.objects import Key
from testbed.errors import KernelError
from testbed.kernel.links import Links, Nft
from testbed.proxy import kubeproxy_rules as rules
from testbed.proxy import kubeproxy_script as script
from testbed.proxy.claims import Claims
from testbed.proxy.kubeproxy_explain import explain
from testbed.proxy.kubeproxy_listing import Listing, differences, parse
from testbed.proxy.kubeproxy_rules import Element, Objects
from testbed.proxy.kubeproxy_table import OTHER_TABLE, TABLE, TABLES, hooks, skeleton
from testbed.proxy.nftables import node_addresses
from testbed.proxy.nftables_listing import tables_with_chain
from testbed.proxy.virtualport import Here, Ports, VirtualPort

log = logging.getLogger(__name__)

_LARGE = 4 * script.SMALL_PIECE
"""Characters of a change."""


class KubeProxyMode:
    """See `Mode`. Where kube-proxy's table is in use, another one takes its turn: see `load`."""

    def __init__(self, nft: Nft, links: Links) -> None:
        self._nft, self._links = nft, links
        self._table = TABLE
        self._here: Here | None = None
        self._addresses: frozenset[IPv4Address] = frozenset()
        self._claims: Claims[Element, str] = Claims()
        self._stale: set[str] = set()

    def load(self, ports: Ports, here: Here) -> None:
        """See `Mode`. Clients stick to the endpoints that they stuck to before.

        A table is put together beside the one in use, in transactions of bounded size, and takes over in the last one:
        new connections meet the old rules or the new.
        """
        self._here, self._addresses = here, node_addresses(self._links, here)
        self._claims, self._stale = _claims_of_all(ports, here), set()
        wanted = self._wanted(ports, here, self._claims)
        in_use = tables_with_chain(self._nft.list("chains ip"), "nat-prerouting")
        used = next((each for each in TABLES if each in in_use), OTHER_TABLE)
        self._table = next(each for each in TABLES if each != used)
        clients = self._clients(used, wanted.sets)
        try:
            self._assemble(wanted, clients, here, script.PIECE)
        except KernelError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._assemble(wanted, clients, here, script.SMALL_PIECE)
        self._nft.load(script.delete(used) + hooks(self._table))

    def change(self, before: Ports, after: Ports, which: Collection[Key]) -> bool:
        """See `Mode`. False where the change is so large that a load, which is cut into pieces, is the better way."""
        if self._here is None:
            return False
        old, new = self._difference(before, after, which, self._here)
        self._sweep(new)
        statements, gone = script.change(self._table, old, new), script.chains_gone(old, new)
        if not statements or len(statements) > _LARGE:
            return not statements
        try:
            self._nft.load(statements + script.chains_deleted(self._table, gone))
        except KernelError as error:
            if error.errno != errno.EBUSY:
                raise
            self._nft.load(statements)
            self._stale.update(gone)
        return True

    def was_edited(self) -> bool:
        """See `Mode`; a node that has another address now, where node ports are served, counts as edited."""
        is_edited = self._nft.was_edited()
        return is_edited or (self._here is not None and node_addresses(self._links, self._here) != self._addresses)

    def differences(self, ports: Ports) -> list[str]:
        """See `Mode`. The clients that stick to an endpoint are nobody's business."""
        if self._here is None:
            return [f"+ table ip {self._table}"]
        have = parse(self._nft.list(f"table ip {self._table}"))
        for name in [name for name in have.elements if name.startswith("affinity-")]:
            del have.elements[name]
        wanted = self._wanted(ports, self._here, _claims_of_all(ports, self._here))
        return differences(have, _listing(wanted, self._here))

    def explain(self, port: VirtualPort) -> list[str]:
        """See `Mode`. There are no counters: kube-proxy's nftables rules have none."""
        return explain(parse(self._nft.list(f"table ip {self._table}")), port)

    def teardown(self) -> bool:
        """See `Mode`. The table of a real kube-proxy goes too, also that for IPv6."""
        self._here, self._claims, self._stale = None, Claims(), set()
        there = self._nft.list("chains ip") + self._nft.list("chains ip6")
        ours = [f"table {family} {name}" for family in ("ip", "ip6") for name in TABLES]
        if found := [each for each in ours if f"{each} {{" in there]:
            self._nft.load("".join(f"delete {each}\n" for each in found))
        return True

    def _assemble(self, wanted: Objects, clients: Mapping[Element, str], here: Here, size: int) -> None:
        self._nft.load(script.delete(self._table) + skeleton(self._table, here))
        for piece in script.assemble(self._table, wanted, size):
            self._nft.load(piece)
        for piece in script.elements_added(self._table, clients, size):
            self._nft.load(piece)

    def _wanted(self, ports: Ports, here: Here, claims: Claims[Element, str]) -> Objects:
        wanted = _objects(ports, ports, here)
        wanted.elements.update(claims.settled())
        wanted.elements.update(rules.node_port_ips(here, self._addresses))
        return wanted

    def _difference(self, before: Ports, after: Ports, which: Collection[Key], here: Here) -> tuple[Objects, Objects]:
        """What these Services have in the table, before and after, with what they have in common with others."""
        old, new = _objects(before, which, here), _objects(after, which, here)
        claims = [(each, _claims(before, each, here), _claims(after, each, here)) for each in which]
        touched = {element for _, had, has in claims for element in (*had, *has)}
        old.elements.update(self._claims.settled(touched))
        for service, had, has in claims:
            self._claims.remove(service, had)
            self._claims.add(service, has)
        new.elements.update(self._claims.settled(touched))
        return old, new

    def _clients(self, table: str, sets: Mapping[str, int]) -> dict[Element, str]:
        """Who sticks to which endpoint there, where the endpoint stays, and so does the time for which they stick."""
        there = parse(self._nft.list(f"sets table ip {table}")) if sets else Listing()
        kept = [
            name for name, timeout_s in sets.items() if there.rules.get(f"set {name}") == script.affinity_set(timeout_s)
        ]
        return {Element(name, client): "" for name in kept for client in there.elements.get(name, {})}

    def _sweep(self, wanted: Objects) -> None:
        """Delete the chains that could not be deleted when they were left, unless they are wanted again."""
        self._stale.difference_update(wanted.chains)
        if not self._stale:
            return
        try:
            self._nft.load(script.chains_deleted(self._table, sorted(self._stale)))
        except KernelError as error:
            if error.errno != errno.EBUSY:
                raise
            log.info("%d chains that nothing leads to are still busy", len(self._stale))
        else:
            self._stale.clear()


def _objects(ports: Ports, which: Iterable[Key], here: Here) -> Objects:
    found = Objects()
    for service in which:
        for port in ports.get(service, ()):
            found.add(rules.objects(port, here))
    return found


def _claims(ports: Ports, service: Key, here: Here) -> dict[Element, str]:
    return {element: value for port in ports.get(service, ()) for element, value in rules.claims(port, here).items()}


def _claims_of_all(ports: Ports, here: Here) -> Claims[Element, str]:
    found: Claims[Element, str] = Claims()
    for service in ports:
        found.add(service, _claims(ports, service, here))
    return found


def _listing(wanted: Objects, here: Here) -> Listing:
    found = parse(skeleton(TABLE, here) + hooks(TABLE))
    found.rules.update({f"chain {name}": each for name, each in wanted.chains.items()})
    found.rules.update({f"set {name}": script.affinity_set(timeout_s) for name, timeout_s in wanted.sets.items()})
    for (where, key), value in wanted.elements.items():
        found.elements.setdefault(where, {})[key] = value
    return found
