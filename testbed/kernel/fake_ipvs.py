"""IP virtual servers in memory, held to the real ones by the same contract tests."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from testbed.errors import KernelError
from testbed.kernel.ipvs_wire import Real, RealState, Server, say


class FakeIpvs:
    """Remembers; `connect` makes a connection, as a client would."""

    def __init__(self) -> None:
        self.parameters: dict[str, str] = {}
        self._servers: dict[Server, int] = {}
        self._reals: dict[Server, dict[Real, RealState]] = {}

    def ensure_servers(self, servers: Mapping[Server, int]) -> None:
        """See Ipvs."""
        self._servers.update(servers)
        for server in servers:
            self._reals.setdefault(server, {})

    def delete_servers(self, servers: Iterable[Server]) -> None:
        """See Ipvs."""
        for server in servers:
            self._servers.pop(server, None)
            self._reals.pop(server, None)

    def ensure_reals(self, reals: Iterable[tuple[Server, Real]], *, weight: int) -> None:
        """See Ipvs."""
        for server, real in reals:
            if server not in self._servers:
                raise KernelError(f"ipvsadm -a {say(server)}: No such process", errno.ESRCH)
            there = self._reals[server]
            there[real] = replace(there.get(real, RealState(weight)), weight=weight)

    def delete_reals(self, reals: Iterable[tuple[Server, Real]]) -> None:
        """See Ipvs."""
        for server, real in reals:
            self._reals.get(server, {}).pop(real, None)

    def servers(self) -> dict[Server, int]:
        """See Ipvs."""
        return dict(self._servers)

    def reals(self, server: Server) -> dict[Real, RealState]:
        """See Ipvs."""
        return dict(self._reals.get(server, {}))

    def clients(self, server: Server) -> dict[IPv4Address, Real]:  # noqa: ARG002 - nobody connects to memory
        """See Ipvs."""
        return {}

    def count(self) -> int:
        """See Ipvs."""
        return len(self._servers)

    def set_parameters(self, values: Mapping[str, str]) -> None:
        """See Ipvs."""
        self.parameters.update(values)

    def close(self) -> None:
        """See Ipvs."""

    def connect(self, server: Server, real: Real, active: int) -> None:
        """So many connections are established to that real server now."""
        self._reals[server][real] = replace(self._reals[server][real], active=active)
