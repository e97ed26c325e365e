"""The zones of a running knotd: read whole, changed by transactions.

There is no zone file. A knotd that has just started has empty zones and answers SERVFAIL; the first transaction gives
each its SOA and all of its records at once, every further one a difference. 15,000 records take 0.2 s, one changed
record at 5,000 Services 5 ms, and 15 ms soon after another, since knotd first waits until nobody reads the old zone.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from pathlib import Path

from testbed.dns.control import Control, Item, KnotRefused, connected, question, refusals
from testbed.dns.records import TTL_S, Record

log = logging.getLogger(__name__)

SOA = "ns.dns.{domain}. hostmaster.{domain}. 1 7200 1800 86400 {ttl}"
"""knotd counts the serial up with each transaction; the last number is how long a resolver may remember NXDOMAIN."""
KNOWN = frozenset(("A", "AAAA", "CNAME", "NS", "PTR", "SRV", "TXT"))
Instance = tuple[int, int]


class Knot:
    """knotd behind its control socket. Methods raise ServiceUnavailable where it does not answer, and KnotRefused."""

    def __init__(self, socket: Path, domain: str) -> None:
        self.socket, self._domain = socket, domain

    def instance(self) -> Instance | None:
        """Which knotd it is, as its socket shows: another one knows nothing. None while there is none."""
        try:
            seen = self.socket.stat()
        except FileNotFoundError:
            return None
        return seen.st_ino, seen.st_ctime_ns

    async def read(self, zone: str) -> set[Record]:
        """Every record of the zone but its SOA; of an empty one none."""
        async with connected(self.socket) as control:
            units = await control.ask("zone-read", zone)
        found = (Record(unit[Item.OWNER], unit[Item.TYPE], unit[Item.DATA]) for unit in units if Item.OWNER in unit)
        return {record for record in found if record.type in KNOWN}

    async def serial(self, zone: str) -> str:
        """The SOA's serial: another one is another content. Empty for an empty zone."""
        async with connected(self.socket) as control:
            return await _serial(control, zone)

    async def change(self, zone: str, gone: Collection[Record], new: Collection[Record], *, is_empty: bool) -> str:
        """All of it in one transaction: the serial that it gave. A zone that is empty gets its SOA too.

        A record that knotd does not take is logged and left out: it stands in nobody's way.
        """
        soa = Record(zone, "SOA", SOA.format(domain=self._domain, ttl=TTL_S))
        async with connected(self.socket) as control:
            await _begin(control, zone)
            answers = await control.ask_all([*_edits(zone, gone, [soa, *new] if is_empty else new)])
            for refusal in refusals(unit for answer in answers for unit in answer):
                log.warning("%s", refusal)
            try:
                await control.ask("zone-commit", zone)
            except KnotRefused:
                await control.ask("zone-abort", zone)
                raise
            return await _serial(control, zone)


async def _begin(control: Control, zone: str) -> None:
    """A transaction that somebody began and did not live to end is given up."""
    try:
        await control.ask("zone-begin", zone)
    except KnotRefused:
        await control.ask("zone-abort", zone)
        await control.ask("zone-begin", zone)


async def _serial(control: Control, zone: str) -> str:
    units = await control.ask("zone-read", zone, owner=zone, type="SOA")
    return next((unit[Item.DATA].split()[2] for unit in units if Item.DATA in unit), "")


def _edits(zone: str, gone: Collection[Record], new: Collection[Record]) -> Iterator[bytes]:
    for record in gone:
        yield question("zone-unset", zone, owner=record.owner, type=record.type, data=record.data)
    for record in new:
        yield question("zone-set", zone, owner=record.owner, ttl=str(TTL_S), type=record.type, data=record.data)
