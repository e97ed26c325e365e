"""The controller of the cluster's DNS: what names there should be, against what knotd serves.

    informers ─▶ names ─▶ records that came or went ─▶ one transaction per zone ─▶ knotd
                   └────▶ all records ── against what knotd has, read back ───────▶   after a restart of either, a
                                                                                       refusal, and now and then

Changes that arrive during a transaction are the next one: a burst costs a few of them, and none waits for a timer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress

from testbed.api.kinds import ENDPOINT_SLICE, POD, SERVICE
from testbed.client.informer import Informer
from testbed.client.protocol import Client
from testbed.dns.control import KnotRefused
from testbed.dns.knot import Instance, Knot
from testbed.dns.names import Names, Sources
from testbed.dns.records import Record, zone_of, zones
from testbed.errors import ServiceUnavailable
from testbed.waiting import Backoff

log = logging.getLogger(__name__)

LOOK_S = 0.1
"""How often to look whether knotd is still the one that was loaded."""
RESYNC_S = 5.0
"""How often to ask knotd for the serials of its zones: whatever a person changed with `knotc` is put right."""


class Controller:
    """Makes knotd serve what the API says, for as long as `run` runs."""

    def __init__(self, client: Client, knot: Knot, domain: str, server: str, resync_s: float = RESYNC_S) -> None:
        self._sources = Sources(*(Informer(client, kind) for kind in (SERVICE, ENDPOINT_SLICE, POD)))
        self._knot, self._resync_s = knot, resync_s
        self._changed = asyncio.Event()
        self._names = Names(self._sources, domain, server, self._changed.set)
        self._zones = zones(domain)
        self._loaded: Instance | None = None
        self._serials: dict[str, str] = {}
        self._resync_at = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether the knotd that runs now has been given everything."""
        return self._loaded is not None and self._loaded == self._knot.instance()

    async def run(self) -> None:
        """Follow the cluster until cancelled. A knotd that is away or refuses is tried again, and then loaded whole."""
        async with asyncio.TaskGroup() as group:  # an informer that dies takes the rest along: its news would stay old
            for informer in self._sources.informers:
                group.create_task(informer.run())
            await asyncio.gather(*(informer.synced.wait() for informer in self._sources.informers))
            await self._follow()

    async def _follow(self) -> None:
        backoff = Backoff(most_s=0.5)
        while True:
            self._changed.clear()
            try:
                await self._sync()
            except (ServiceUnavailable, KnotRefused) as error:
                log.log(logging.DEBUG if backoff.failures else logging.WARNING, "%s", error)
                self._loaded = None
                await backoff.wait()
                continue
            backoff.reset()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_S)

    async def _sync(self) -> None:
        instance, now = self._knot.instance(), asyncio.get_running_loop().time()
        if instance is None or instance != self._loaded or (now >= self._resync_at and await self._is_strange()):
            await self._load()
            self._loaded = instance
        if now >= self._resync_at:
            self._resync_at = now + self._resync_s
        if touched := self._names.take():
            wanted = self._names.records
            await self._write({r for r in touched if r not in wanted}, {r for r in touched if r in wanted})

    async def _is_strange(self) -> bool:
        """Whether some zone is not as it was left."""
        return any([await self._knot.serial(zone) != self._serials.get(zone) for zone in self._zones])

    async def _load(self) -> None:
        """Compare everything."""
        self._names.take()
        wanted = self._split(self._names.records)
        for zone in self._zones:
            held = await self._knot.read(zone)
            gone, new = held - wanted[zone], wanted[zone] - held
            if gone or new:
                log.info("%s: %d records, of which %d new and %d gone", zone, len(wanted[zone]), len(new), len(gone))
                self._serials[zone] = await self._knot.change(zone, gone, new, is_empty=not held)
            else:
                self._serials[zone] = await self._knot.serial(zone)

    async def _write(self, gone: Collection[Record], new: Collection[Record]) -> None:
        gone_from, new_in = self._split(gone), self._split(new)
        for zone in self._zones:
            if gone_from[zone] or new_in[zone]:
                self._serials[zone] = await self._knot.change(zone, gone_from[zone], new_in[zone], is_empty=False)

    def _split(self, records: Collection[Record]) -> dict[str, set[Record]]:
        """By zone."""
        split: dict[str, set[Record]] = {zone: set() for zone in self._zones}
        for record in records:
            split[zone_of(record, self._zones)].add(record)
        return split
