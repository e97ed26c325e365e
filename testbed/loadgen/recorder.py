"""Latencies of a running generator, counted where they occur and merged into Locust's own statistics in batches.

Locust's `request` event costs some 10 µs a request: it calls each listener, looks up two entries, asks for the time.
Here a user's loop increments one element of a list. What a window saw is the difference of two snapshots, so nobody
has to stop for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from testbed.loadgen.records import Histogram

FAST_US = 1 << 14
"""Latencies below this are counted in a list, by the microsecond; the few others in a dictionary."""


class Series:
    """The latencies of one request name."""

    def __init__(self, method: str, name: str) -> None:
        self.method, self.name = method, name
        self.counts = [0] * FAST_US
        """`counts[us] += 1` is the whole cost of recording; IndexError means `record_slow`."""
        self.slow: dict[int, int] = {}
        self.errors = 0
        self.first_error = ""

    def record(self, ns: int) -> None:
        """Count one latency."""
        us = ns // 1000
        if us < FAST_US:
            self.counts[us] += 1
        else:
            self.record_slow(us)

    def record_slow(self, us: int) -> None:
        """Count one latency of `FAST_US` or more."""
        self.slow[us] = self.slow.get(us, 0) + 1

    def fail(self, reason: str) -> None:
        """Count one request that was not answered well."""
        self.errors += 1
        self.first_error = self.first_error or reason

    @property
    def requests(self) -> int:
        """How many were answered well so far."""
        return sum(self.counts) + sum(self.slow.values())

    def snapshot(self) -> Snapshot:
        """The state now."""
        return Snapshot(tuple(self.counts), dict(self.slow), self.errors)


@dataclass(frozen=True)
class Snapshot:
    """A series at one moment."""

    counts: tuple[int, ...]
    slow: dict[int, int]
    errors: int

    def since(self, earlier: Snapshot | None) -> tuple[dict[int, int], int]:
        """Latencies (µs → count) and errors that came after `earlier`, or since the beginning."""
        if earlier is None:
            return {us: n for us, n in enumerate(self.counts) if n} | self.slow, self.errors
        pairs = enumerate(zip(self.counts, earlier.counts, strict=True))
        fast = {us: now - before for us, (now, before) in pairs if now != before}
        slow = {us: n - earlier.slow.get(us, 0) for us, n in self.slow.items() if n != earlier.slow.get(us, 0)}
        return fast | slow, self.errors - earlier.errors


class Recorder:
    """All series of one Locust environment."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], Series] = {}
        self._merged: dict[tuple[str, str], Snapshot] = {}

    def series(self, method: str, name: str) -> Series:
        """The series of that request, made at first use."""
        key = (method, name)
        if key not in self._series:
            self._series[key] = Series(method, name)
        return self._series[key]

    def all(self) -> Iterable[Series]:
        """Every series."""
        return self._series.values()

    @property
    def requests(self) -> int:
        """Requests answered well so far, all series together."""
        return sum(series.requests for series in self._series.values())

    def snapshots(self) -> dict[tuple[str, str], Snapshot]:
        """Every series at one moment: no request is recorded while this runs."""
        return {key: series.snapshot() for key, series in self._series.items()}

    def on_request(
        self,
        request_type: str,
        name: str,
        response_time: float | None,
        exception: BaseException | None = None,
        **_: Any,
    ) -> None:
        """Listener of Locust's `request` event, for stock users; `response_time` is in (fractional) milliseconds."""
        series = self.series(request_type, name)
        if exception is not None:
            series.fail(str(exception) or repr(exception))
        elif response_time is not None:
            series.record(round(response_time * 1e6))

    def merge_into(self, stats: Any) -> None:
        """Add what came since the last merge to a `locust.stats.RequestStats`, which counts in milliseconds."""
        for key, now in self.snapshots().items():
            latencies, errors = now.since(self._merged.get(key))
            self._merged[key] = now
            if latencies:
                series = self._series[key]
                for entry in (stats.total, stats.entries[(series.name, series.method)]):
                    add_to_entry(entry, latencies)
            for _ in range(errors):
                stats.log_error(key[0], key[1], self._series[key].first_error)


def add_to_entry(entry: Any, latencies: dict[int, int]) -> None:
    """Do to a `locust.stats.StatsEntry` what its `log` would have done for each latency (µs → count)."""
    now, count = time.time(), sum(latencies.values())
    if entry.use_response_times_cache and entry.last_request_timestamp and int(now) > int(entry.last_request_timestamp):
        entry._cache_response_times(int(now) - 1)
    entry.num_requests += count
    entry.num_reqs_per_sec[int(now)] += count
    entry.last_request_timestamp = now
    entry.total_response_time += sum(us * n for us, n in latencies.items()) / 1000
    low, high = min(latencies) / 1000, max(latencies) / 1000
    entry.min_response_time = low if entry.min_response_time is None else min(entry.min_response_time, low)
    entry.max_response_time = max(entry.max_response_time, high)
    for us, n in Histogram.of(latencies).counts.items():
        entry.response_times[us / 1000] += n
