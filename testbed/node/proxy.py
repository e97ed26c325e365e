"""The proxy of one node as its daemon runs it: rules, health checks, and whoever asks, one after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from testbed.api.objects import Key
from testbed.errors import KernelError, ServiceUnavailable
from testbed.node.changes import Changes
from testbed.node.handles import Handles
from testbed.node.healthchecks import HealthChecks, addresses
from testbed.node.network import Place
from testbed.node.pages import Explained, Pages
from testbed.node.rules import NodeRules, here
from testbed.node.seen import Seen
from testbed.proxy.iptables_table import TABLES
from testbed.proxy.mode import Mode
from testbed.proxy.services import Snapshot
from testbed.proxy.virtualport import HealthCheck

log = logging.getLogger(__name__)


class NodeProxy:
    """Rules belong to one thread at a time: a question waits for a sync, and a sync for a question."""

    def __init__(self, node: str, handles: Handles, changes: Changes) -> None:
        self._handles = handles
        self._rules = NodeRules(handles)
        self._seen = Seen(changes)
        self._pages = Pages(node, self._seen, self)
        self._health_checks = HealthChecks(handles.listen, lambda: self._seen.is_healthy)
        self._lock = asyncio.Lock()
        self._serves: Snapshot | None = None

    @property
    def sequence(self) -> int:
        """Of the snapshot of Services that the kernel holds; 0 where nobody knows what it holds."""
        return self._rules.sequence

    async def sync(self, place: Place, tunnel: str, wanted: Snapshot) -> None:
        """Make kernel and health checks be what is wanted. Raises KernelError."""
        mode = place.spec.node(place.node.name).proxy
        async with self._lock:
            with self._seen.syncing(mode) as sync:
                before, edits = self._rules.sequence, self._rules.edits
                done = await asyncio.to_thread(self._rules.sync, place, tunnel, wanted)
                self._serves = wanted
                sync.ports, sync.flows_deleted = wanted.ports, done.forgotten_flows
                sync.was_edited = self._rules.edits > edits
                sync.is_full = done.is_full if done.is_full or wanted.sequence != before else None
        await self._health_checks.sync(wanted.health_checks, addresses(here(place)))

    async def answer(self) -> None:
        """Serve figures and answers over HTTP until cancelled. Raises KernelError where a port is taken."""
        await self._pages.serve(self._handles.listen)

    async def close(self) -> None:
        """No health check is answered any more; the kernel is left as it is."""
        await self._health_checks.close()

    async def explain(self, which: Key) -> Sequence[Explained]:
        """See pages.Rules."""
        async with self._lock:
            mode, serves = self._loaded()
            ports = serves.ports.get(which, ())
            return [Explained(port, await asyncio.to_thread(mode.explain, port)) for port in ports]

    async def differences(self) -> Sequence[str]:
        """See pages.Rules."""
        async with self._lock:
            mode, serves = self._loaded()
            return await asyncio.to_thread(mode.differences, serves.ports)

    async def rules_held(self) -> Mapping[str, int]:
        """See pages.Rules. A figure that cannot be had now keeps nobody from the others."""
        if self._seen.mode != "iptables":
            return {}
        try:
            saved = await asyncio.to_thread(
                lambda: {table: self._handles.doors.iptables.save(table) for table in TABLES}
            )
        except KernelError as error:
            log.warning("iptables rules cannot be counted: %s", error)
            return {}
        return {table: text.count("-A KUBE-") for table, text in saved.items()}

    def health_check(self, which: Key) -> HealthCheck | None:
        """See pages.Rules."""
        return self._serves.health_checks.get(which) if self._serves else None

    def _loaded(self) -> tuple[Mode, Snapshot]:
        if self._rules.mode is None or self._serves is None:
            raise ServiceUnavailable("this node's rules have not been loaded yet")
        return self._rules.mode, self._serves
