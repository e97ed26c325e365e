"""From a write to the API to the first connection that goes where it says, with the node daemon in between."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field

from testbed.api.kinds import ENDPOINT_SLICE
from testbed.api.objects import Object
from testbed.client.http import HttpClient
from testbed.kernel.nft import LibNft
from testbed.waiting import Backoff, wait_until_async
from tests.benchmarks.proxy_bed import CLIENT, CONNECTS, SERVERS, Bed, Usage, proxy_bed, usage
from tests.benchmarks.proxy_objects import PORT, TARGET, addresses, cluster_ip, ready, service, slices

CROWD = 250
CHANGES, ADDITIONS = 60, 20
PAUSE_S = 0.02
"""Between two changes: one at a time is what is measured."""
CONNECTIONS = 3000
ANSWER_S = 120.0
NOBODY = "-"


@dataclass
class Found:
    """What was measured at one size."""

    start_s: float = 0.0
    """From the start of the node daemon to the first connection to the last Service."""
    changes_s: list[float] = field(default_factory=list)
    """One endpoint of a Service becomes another."""
    additions_s: list[float] = field(default_factory=list)
    """One more Service."""
    crowd_s: list[float] = field(default_factory=list)
    """One of 250 endpoints becomes another."""
    connect_us: tuple[float, float] = (0.0, 0.0)
    """Medians of a connection to the last Service, and to its pod."""
    at_start: Usage = field(default_factory=Usage)
    at_end: Usage = field(default_factory=Usage)


async def measured(size: int, mode: str) -> Found:
    """On a node whose last Service of `size` is followed, connection by connection."""
    found = Found()
    with proxy_bed(mode) as bed:
        await bed.fill(size)
        with bed.control_plane(), bed.answering():
            async with bed.api() as client:
                with bed.running(CONNECTS, CLIENT, "follow", str(cluster_ip(size)), str(PORT)) as follower:
                    assert await _said(follower) == NOBODY
                    began = time.monotonic()
                    with bed.node_daemon() as daemon:
                        found.start_s = await _until(follower, "one") - began
                        found.at_start = usage(daemon.pid)
                        await Backoff(1.0, 1.0).wait()
                        found.changes_s = [each async for each in _changes(bed, client, follower, size)]
                        found.additions_s = [await _added(bed, client, size + 2 + at) for at in range(ADDITIONS)]
                        found.crowd_s = [each async for each in _crowd_changes(bed, client, size + 1)]
                        found.at_end = usage(daemon.pid)
            found.connect_us = _latency(bed, size)
    return found


async def _changes(bed: Bed, client: HttpClient, follower: subprocess.Popen[str], number: int) -> AsyncIterator[float]:
    for at in range(1, CHANGES + 1):
        name = SERVERS[at % 2]
        began = time.monotonic()
        await client.patch(ENDPOINT_SLICE, f"s{number}-0", {"endpoints": ready([bed.server(name)])}, "default")
        yield await _until(follower, name) - began
        await Backoff(PAUSE_S, PAUSE_S).wait()


async def _added(bed: Bed, client: HttpClient, number: int) -> float:
    """Its endpoints are there already, as those of a Deployment are; its last write is the Service's."""
    for each in slices(number, [bed.server("two"), bed.server("one")]):
        await client.create(each)
    with bed.running(CONNECTS, CLIENT, "follow", str(cluster_ip(number)), str(PORT)) as follower:
        assert await _said(follower) == NOBODY
        began = time.monotonic()
        await client.create(service(number))
        return await _until(follower, *SERVERS) - began


async def _crowd_changes(bed: Bed, client: HttpClient, number: int) -> AsyncIterator[float]:
    """Until the kernel has new rules: which of 250 endpoints a connection meets is chance."""
    crowd = addresses(1, CROWD)
    made = [await client.create(each) for each in (*slices(number, crowd), service(number))]
    last: Object = made[-2]
    with closing(LibNft(bed.node_place)) as nft:
        await _edited(nft)
        await Backoff(0.5, 0.5).wait()
        nft.was_edited()
        for at in range(1, CHANGES + 1):
            changed = [*last["endpoints"][:-1], *ready([bed.server(SERVERS[at % 2])])]
            began = time.monotonic()
            await client.patch(ENDPOINT_SLICE, last["metadata"]["name"], {"endpoints": changed}, "default")
            yield await _edited(nft) - began
            await Backoff(PAUSE_S, PAUSE_S).wait()


async def _edited(nft: LibNft) -> float:
    """The moment at which somebody has committed a transaction."""

    async def check() -> bool:
        return nft.was_edited()

    await wait_until_async(check, ANSWER_S, "new rules", every_s=0.0002)
    return time.monotonic()


def _latency(bed: Bed, number: int) -> tuple[float, float]:
    """In turns, by a client on one CPU."""
    to = (str(cluster_ip(number)), str(PORT), str(bed.server(SERVERS[CHANGES % 2])), str(TARGET))
    with bed.running(CONNECTS, CLIENT, "latency", *to, str(CONNECTIONS), "0") as program:
        assert program.stdout
        by_service, by_pod = (float(program.stdout.readline().split()[0]) for _ in range(2))
    return by_service, by_pod


async def _until(follower: subprocess.Popen[str], *wanted: str) -> float:
    """The moment from which one of these answers."""
    async with asyncio.timeout(ANSWER_S):
        while True:
            moment, name = await _line(follower)
            if name in wanted:
                return moment


async def _said(follower: subprocess.Popen[str]) -> str:
    return (await _line(follower))[1]


async def _line(follower: subprocess.Popen[str]) -> tuple[float, str]:
    assert follower.stdout
    moment, name = (await asyncio.to_thread(follower.stdout.readline)).split()
    return float(moment), name
