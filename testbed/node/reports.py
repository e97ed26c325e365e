"""What node daemons tell the API: how far each node's rules are, and whether its network carries full-size packets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from testbed.api.kinds import LEASE, NODE
from testbed.api.objects import Object, now_micro
from testbed.api.wellknown import DAEMON_LEASE_PREFIX, SYNCED_ANNOTATION, SYSTEM_NAMESPACE
from testbed.client.protocol import Client
from testbed.errors import Conflict, NotFound
from testbed.node.loop import keep
from testbed.node.proof import with_condition
from testbed.waiting import Backoff

RENEW_S = 10.0
LEASE_DURATION_S = 40
REST_S = 0.01
"""After a round of writes, for each lease: many nodes in one process write a hundred leases a second at the most."""


class Leases:
    """Writes one lease at a time, each with the newest version at that moment: a burst of changes costs few writes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._versions: dict[str, int] = {}
        self._pending: set[str] = set()
        self._wake = asyncio.Event()

    def synced(self, node: str, version: int) -> None:
        """The node's kernel holds all Services and endpoints up to this version."""
        if self._versions.get(node) != version:
            self._versions[node] = version
            self._pending.add(node)
            self._wake.set()

    def forget(self, node: str) -> None:
        """The node is gone, and so will be its lease: one that comes back under its name is not to be taken for synced.

        Whoever writes leases deletes them too: what is being written just now would otherwise come after the deletion.
        """
        self._versions.pop(node, None)
        self._pending.add(node)
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled; all leases are renewed every ten seconds."""
        await keep(self._write_all, self._wake, every_s=RENEW_S, what="leases of node daemons")

    async def _write_all(self) -> None:
        due = self._pending or set(self._versions)
        self._pending = set()
        while due:
            node = due.pop()
            try:
                if node in self._versions:
                    await self._write(node, self._versions[node])
                else:
                    await self._delete(node)
            except BaseException:
                self._pending |= {node, *due}
                raise
        rest_s = REST_S * len(self._versions)
        await Backoff(rest_s, rest_s).wait()

    async def _write(self, node: str, version: int) -> None:
        lease = _lease(node, version)
        name = lease["metadata"]["name"]
        patch = {"metadata": {"annotations": lease["metadata"]["annotations"]}, "spec": lease["spec"]}
        try:
            await self._client.patch(LEASE, name, patch, SYSTEM_NAMESPACE)
        except NotFound:
            await self._client.create(lease)

    async def _delete(self, node: str) -> None:
        with suppress(NotFound):
            await self._client.delete(LEASE, f"{DAEMON_LEASE_PREFIX}{node}", SYSTEM_NAMESPACE)


async def write_condition(client: Client, node: str, condition: Mapping[str, Any]) -> None:
    """Put the condition among the others of the Node's status, however often somebody else writes there meanwhile."""
    while True:
        found = await client.get(NODE, node)
        try:
            await client.update(with_condition(found, dict(condition)), subresource="status")
        except Conflict:
            continue
        return


def _lease(node: str, version: int) -> Object:
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {
            "name": f"{DAEMON_LEASE_PREFIX}{node}",
            "namespace": SYSTEM_NAMESPACE,
            "annotations": {SYNCED_ANNOTATION: str(version)},
        },
        "spec": {"holderIdentity": node, "leaseDurationSeconds": LEASE_DURATION_S, "renewTime": now_micro()},
    }
