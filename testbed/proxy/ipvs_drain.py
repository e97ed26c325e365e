"""Real servers on their way out of mode `ipvs`: they keep the connections they have, and take no new ones."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from testbed.kernel.ipvs import Ipvs
from testbed.kernel.ipvs_wire import Real, RealState, Server


class Drain:
    """Those of TCP whose weight is 0, until their last connection is over.

    UDP knows no end of a connection, and no service may wait for it: its clients go elsewhere at once, as with
    kube-proxy.
    """

    def __init__(self, ipvs: Ipvs) -> None:
        self._ipvs = ipvs
        self._reals: dict[Server, set[Real]] = {}

    @property
    def addresses(self) -> set[IPv4Address]:
        """Those of the virtual servers, which must stay bound meanwhile."""
        return {server.address for server in self._reals}

    def begin(self, reals: Iterable[tuple[Server, Real]]) -> None:
        """Let these take no new connections.

        None is deleted before the next `finish`: a connection that is just being established does not count yet.
        """
        leaving = set(reals)
        waiting = {each for each in leaving if each[0].protocol == "tcp"}
        self._ipvs.delete_reals(sorted(leaving - waiting))
        self._ipvs.ensure_reals(sorted(waiting), weight=0)
        for server, real in waiting:
            self._reals.setdefault(server, set()).add(real)

    def cancel(self, reals: Iterable[tuple[Server, Real]]) -> None:
        """These serve again."""
        for server, real in reals:
            self._forget(server, {real})

    def __contains__(self, server: Server) -> bool:
        """Whether any of its real servers drains."""
        return server in self._reals

    def finish(self) -> list[Server]:
        """Delete those that have drained; the virtual servers of which none drains any more."""
        over: list[Server] = []
        for server in list(self._reals):
            there = self._ipvs.reals(server)
            drained = {real for real in self._reals[server] if real not in there or not there[real].active}
            self._ipvs.delete_reals((server, real) for real in sorted(drained))
            self._forget(server, drained)
            if server not in self._reals:
                over.append(server)
        return over

    def _forget(self, server: Server, reals: set[Real]) -> None:
        left = self._reals.get(server, set()) - reals
        if left:
            self._reals[server] = left
        else:
            self._reals.pop(server, None)


def leave(ipvs: Ipvs) -> list[Server]:
    """End all that no connection needs, and have the rest take no new ones; the virtual servers that must stay.

    Also those of UDP: nothing but its virtual server knows where a client with a fixed port was sent.
    """
    staying: list[Server] = []
    for server in ipvs.servers():
        there = ipvs.reals(server)
        busy = {real for real, state in there.items() if _is_busy(server, state)}
        ipvs.delete_reals((server, real) for real in there.keys() - busy)
        ipvs.ensure_reals([(server, real) for real in busy if there[real].weight], weight=0)
        if busy:
            staying.append(server)
        else:
            ipvs.delete_servers([server])
    return staying


def _is_busy(server: Server, state: RealState) -> bool:
    """Beside what is established counts what may be about to be: whatever is there when the weight becomes 0."""
    counts_inactive = server.protocol != "tcp" or state.weight
    return bool(state.active or (counts_inactive and state.inactive))
