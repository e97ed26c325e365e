"""The mode `iptables`: rules as kube-proxy's iptables mode makes them, to compare with.

kube-proxy writes the dispatching chains anew, a rule for each Service, whatever has changed. Here a change is the
chains of the Services that changed, and single rules inserted and deleted; a load is the difference to what
iptables-save prints, in transactions of bounded size: the time that a long one takes grows with its square.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address
from itertools import groupby, islice

from testbed.api.objects import Key
from testbed.errors import KernelError
from testbed.kernel.links import Links, Nft
from testbed.proxy import iptables_rules, iptables_state
from testbed.proxy.iptables_explain import explain
from testbed.proxy.iptables_rules import LARGE_CLUSTER, Rules
from testbed.proxy.iptables_state import State, Step, Wanted, script
from testbed.proxy.iptables_table import CANARY, TABLES, last_rules, serves_every_address
from testbed.proxy.mode import Iptables
from testbed.proxy.nftables import node_addresses
from testbed.proxy.nftables_listing import tables_with_chain
from testbed.proxy.virtualport import Here, Ports, VirtualPort

_STEPS = 1000
"""To a transaction, where the socket buffer allows it: the chains of some 400 ports with two endpoints."""


class IptablesMode:
    """See `Mode`."""

    def __init__(self, iptables: Iptables, nft: Nft, links: Links) -> None:
        self._iptables, self._nft, self._links = iptables, nft, links
        self._here: Here | None = None
        self._addresses: frozenset[IPv4Address] = frozenset()
        self._endpoints = 0
        self._is_large = False

    def load(self, ports: Ports, here: Here) -> None:
        """See `Mode`. What is as it should be is not touched, so clients stick to the endpoints that they stuck to."""
        self._here, self._addresses = here, self._node_addresses(here)
        self._endpoints = _endpoints(ports, ports)
        self._is_large = self._endpoints > LARGE_CLUSTER
        self._restore(iptables_state.load(self._there(), self._wanted(ports, here)))

    def change(self, before: Ports, after: Ports, which: Collection[Key]) -> bool:
        """See `Mode`. False where the cluster has become so large that comments are left out."""
        if self._here is None:
            return False
        self._endpoints += _endpoints(after, which) - _endpoints(before, which)
        if self._endpoints > LARGE_CLUSTER and not self._is_large:
            return False
        old, new = self._rules(before, which, self._here), self._rules(after, which, self._here)
        steps = list(iptables_state.change(old, new))
        if len(steps) > _STEPS:
            self._restore(steps)
        elif steps:
            self._iptables.restore(script(steps))
        return True

    def was_edited(self) -> bool:
        """See `Mode`; a node that has another address now, where node ports are served, counts as edited."""
        is_edited = self._iptables.was_edited()
        return is_edited or (self._here is not None and self._node_addresses(self._here) != self._addresses)

    def differences(self, ports: Ports) -> list[str]:
        """See `Mode`."""
        if self._here is None:
            return ["+ -t nat -N KUBE-SERVICES"]
        return iptables_state.differences(self._there(), self._wanted(ports, self._here))

    def explain(self, port: VirtualPort) -> list[str]:
        """See `Mode`. Each rule has its packets and bytes; those of table nat count connections."""
        return explain(self._iptables, port)

    def teardown(self) -> bool:
        """See `Mode`. Tables of the variant over nf_tables go as a whole where nobody else has anything in them."""
        self._here = None
        saved = {table: self._iptables.save(table) for table in TABLES}
        there = tables_with_chain(self._nft.list("chains ip"), CANARY)
        whole = [table for table in there if table in TABLES and iptables_state.is_deserted(saved[table])]
        if whole:
            self._nft.load("".join(f"delete table ip {table}\n" for table in whole))
        rest = iptables_state.parse(saved[table] for table in TABLES if table not in whole)
        self._restore(iptables_state.teardown(rest))
        return True

    def _wanted(self, ports: Ports, here: Here) -> Wanted:
        return Wanted(self._rules(ports, ports, here), last_rules(here, self._addresses))

    def _rules(self, ports: Ports, which: Iterable[Key], here: Here) -> Rules:
        found = Rules()
        for service in which:
            for port in ports.get(service, ()):
                found.add(iptables_rules.rules(port, here, is_large=self._is_large))
        return found

    def _there(self) -> State:
        return iptables_state.parse(self._iptables.save(table) for table in TABLES)

    def _restore(self, steps: Iterable[Step]) -> None:
        for _, some in groupby(steps, key=lambda step: step.table):
            while piece := list(islice(some, _STEPS)):
                self._restore_piece(piece)

    def _restore_piece(self, steps: Sequence[Step]) -> None:
        """In halves, where it is too large for this user's socket buffer."""
        try:
            self._iptables.restore(script(steps))
        except KernelError as error:
            if error.errno != errno.EMSGSIZE or len(steps) == 1:
                raise
            self._restore_piece(steps[: len(steps) // 2])
            self._restore_piece(steps[len(steps) // 2 :])

    def _node_addresses(self, here: Here) -> frozenset[IPv4Address]:
        return frozenset() if serves_every_address(here) else node_addresses(self._links, here)


def _endpoints(ports: Ports, which: Iterable[Key]) -> int:
    return sum(len(port.cluster or port.local) for service in which for port in ports.get(service, ()))
