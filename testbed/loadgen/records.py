"""What goes in and out of a load generator, as plain values: trials, their results, latencies. Imports no Locust."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hdrh.histogram import HdrHistogram

SUB_BUCKETS = 2048
"""HdrHistogram's resolution for three digits: exact below 2,048 µs, then 1,024 steps to every doubling."""
HIGHEST_US = 3_600_000_000
BATCH_S = 0.1
"""Length of the batches in `TrialResult.batches`."""


@dataclass(frozen=True)
class Histogram:
    """Latencies in microseconds: the lower end of each HDR bucket that was hit, and how often."""

    counts: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, values_us: Mapping[int, int]) -> Histogram:
        """From counts of whole microseconds; they fall into buckets of three digits."""
        buckets: Counter[int] = Counter()
        for value_us, count in values_us.items():
            buckets[value_us - value_us % bucket_width(value_us)] += count
        return cls(dict(sorted(buckets.items())))

    @classmethod
    def merged(cls, histograms: Iterable[Histogram]) -> Histogram:
        """All of them as one, without loss."""
        total: Counter[int] = Counter()
        for histogram in histograms:
            total.update(histogram.counts)
        return cls(dict(sorted(total.items())))

    @property
    def count(self) -> int:
        """How many latencies are in it."""
        return sum(self.counts.values())

    @property
    def mean_us(self) -> float:
        """Of the bucket middles; 0 for an empty histogram."""
        total = sum((value + bucket_width(value) / 2) * count for value, count in self.counts.items())
        return total / self.count if self.counts else 0.0

    def percentile(self, percent: float) -> float:
        """The latency in µs that `percent` of all do not exceed; 0 for an empty histogram.

        Interpolated inside its bucket, as for any grouped data: a hundred thousand latencies of some 60 µs know their
        median far better than to the whole microsecond at which they were counted.
        """
        wanted = self.count * percent / 100
        seen = 0
        for value, count in self.counts.items():
            if seen + count >= wanted and count:
                return value + bucket_width(value) * max(wanted - seen, 0) / count
            seen += count
        return 0.0

    def encode(self) -> str:
        """HdrHistogram's V2 compressed base64 form, which every HDR tool reads."""
        histogram = HdrHistogram(1, HIGHEST_US, 3)
        for value, count in self.counts.items():
            histogram.record_value(min(value, HIGHEST_US), count)
        encoded: bytes = histogram.encode()
        return encoded.decode()

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """What `encode` wrote."""
        decoded = HdrHistogram.decode(text)
        counts: dict[int, int] = {}
        left, index = decoded.total_count, 0
        while left > 0:
            if count := decoded.get_count_at_index(index):
                counts[decoded.get_value_from_index(index)] = count
                left -= count
            index += 1
        return cls(counts)


def bucket_width(value_us: int) -> int:
    """How many whole microseconds share the HDR bucket of `value_us`."""
    return 1 << max(value_us.bit_length() - SUB_BUCKETS.bit_length() + 1, 0)


@dataclass(frozen=True)
class Trial:
    """One measurement to take: closed loop, each user one request at a time."""

    host: str
    """Base URL: `http://10.244.1.2:80`"""
    users: int
    window_s: float
    warmup_s: float = 0.5
    """The least warm-up, which must also see 500 requests."""
    warmup_limit_s: float = 3.0
    """When to stop waiting for a steady rate; the result is then flagged."""
    settle_s: float = 0.0
    """How long to do nothing first."""
    cpus: tuple[int, ...] = ()
    """Whose busy time is the trial's: those to which client and server are pinned."""

    def to_json(self) -> dict[str, Any]:
        """A JSON document."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Trial:
        """What `to_json` wrote."""
        return cls(**{**doc, "cpus": tuple(doc.get("cpus", ()))})


@dataclass(frozen=True)
class CpuUse:
    """How one CPU spent the window, in microseconds (/proc/stat, whose clock ticks every 10 ms)."""

    cpu: int
    busy_us: int
    """The window less idle, iowait and steal."""
    softirq_us: int
    """Part of `busy_us`: network receive processing, as sampled by the timer."""
    steal_us: int
    """Taken by the hypervisor."""


@dataclass(frozen=True)
class TrialResult:
    """What a generator saw in one window."""

    seconds: float
    count: int
    """Requests answered well."""
    errors: int
    error: str
    """The first failure in words; empty where there was none."""
    latency: str
    """`Histogram.encode`"""
    cpus: tuple[CpuUse, ...]
    generator_us: int
    """CPU time of the generator's own process."""
    batches: tuple[int, ...]
    """Requests per 100 ms, warm-up included."""
    warmup_s: float
    steady: bool
    """Whether the rate had settled (MSER) when the window began."""

    def to_json(self) -> dict[str, Any]:
        """A JSON document."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> TrialResult:
        """What `to_json` wrote."""
        cpus = tuple(CpuUse(**use) for use in doc["cpus"])
        return cls(**{**doc, "cpus": cpus, "batches": tuple(doc["batches"])})


@dataclass(frozen=True)
class LoadRecord:
    """What a run of a locustfile came to; `names` holds a row per request name."""

    host: str
    users: int
    seconds: float
    requests: int
    errors: int
    error: str
    requests_per_s: float
    p50_us: float
    p90_us: float
    p99_us: float
    latency: str
    names: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON document."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> LoadRecord:
        """What `to_json` wrote."""
        return cls(**{**doc, "names": tuple(doc.get("names", ()))})


def to_line(doc: Mapping[str, Any]) -> str:
    """One line of JSON, its newline included."""
    return json.dumps(doc, separators=(",", ":")) + "\n"
