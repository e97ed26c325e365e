"""From measurements to cells: each metric of each variant against the baseline, round by round. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median

from testbed.compare.measurement import Measurement, by_round
from testbed.compare.schedule import CONTROL
from testbed.compare.statistics import Estimate, paired_difference, paired_ratio


@dataclass(frozen=True)
class Metric:
    """A figure of a measurement, and how it is spoken of."""

    key: str
    title: str
    unit: str
    phase: str
    field: str
    """Of that `Phase` of a measurement."""
    enough: float = 0.0
    """Rounds may stop when the ratio's interval is at most this much to either side; 0: never asked."""
    least: int = 1
    """Requests of a window without which it tells nothing: there is no cell where any trial has fewer."""

    def is_told_by(self, one: Measurement) -> bool:
        """Whether the measurement saw enough requests for it."""
        return int(getattr(one, self.phase).count) >= self.least

    def of(self, one: Measurement) -> float:
        """Its value in a measurement."""
        return float(getattr(getattr(one, self.phase), self.field))


LEAST_FOR_TAIL = 10_000
"""Requests in a window below which it has no p99 (MEASUREMENT.md, 6)."""
METRICS: Mapping[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("p50", "median latency, one user", "µs", "lone", "p50_us", 0.01),
        Metric("p99", "99 % of requests within, one user", "µs", "lone", "p99_us", least=LEAST_FOR_TAIL),
        Metric("loaded_p50", "median latency, under load", "µs", "loaded", "p50_us"),
        Metric("loaded_p99", "99 % of requests within, under load", "µs", "loaded", "p99_us", least=LEAST_FOR_TAIL),
        Metric("requests", "requests", "per second", "loaded", "requests_per_s"),
        Metric("cpu", "CPU per request", "µs", "loaded", "cpu_us_per_request", 0.01),
        Metric("busy", "busy time of the pinned CPUs per request", "µs", "loaded", "busy_us_per_request"),
    )
}


@dataclass(frozen=True)
class Cell:
    """One metric of one variant."""

    metric: str
    value: float
    """The median over the rounds, in the metric's unit."""
    difference: Estimate
    """Variant less baseline, in the metric's unit."""
    ratio: Estimate
    """Variant over baseline."""
    within_noise: bool
    """Whether the difference's interval overlaps that of the A/A control: printed as `~`."""


@dataclass(frozen=True)
class Dropped:
    """A round that does not count, and why."""

    round: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Analysis:
    """Everything that the measurements say."""

    baseline: str
    rounds: tuple[int, ...]
    """The numbers of the rounds that count."""
    dropped: tuple[Dropped, ...]
    values: Mapping[str, Mapping[str, tuple[float, ...]]]
    """Variant → metric → one value for each of `rounds`; the baseline and the control included."""
    cells: Mapping[str, Mapping[str, Cell]]
    """Variant → metric → cell; the control included, the baseline not."""

    def cell(self, variant: str, metric: str) -> Cell:
        """One cell."""
        return self.cells[variant][metric]


def analyse(measurements: Sequence[Measurement], baseline: str, variants: Sequence[str]) -> Analysis:
    """Pair every variant (and the control) with the baseline of the same round.

    Rounds count that are complete and in which no trial failed a gate.
    """
    entries = (*variants, CONTROL)
    grouped = by_round(measurements)
    complete = {number: trials for number, trials in grouped.items() if set(entries) <= trials.keys()}
    dropped = tuple(
        Dropped(number, reasons)
        for number, trials in complete.items()
        if (reasons := tuple(f"{name}: {gate}" for name, one in trials.items() for gate in one.failed_gates))
    )
    failed = {one.round for one in dropped}
    rounds = tuple(number for number in complete if number not in failed)
    counted = {entry: [complete[number][entry] for number in rounds] for entry in entries}
    told = [metric for metric in METRICS.values() if all(map(metric.is_told_by, chain(*counted.values())))]
    values = {
        entry: {metric.key: tuple(metric.of(one) for one in own) for metric in told} for entry, own in counted.items()
    }
    return Analysis(baseline, rounds, dropped, values, _cells(values, baseline) if rounds else {})


def _cells(values: Mapping[str, Mapping[str, tuple[float, ...]]], baseline: str) -> Mapping[str, Mapping[str, Cell]]:
    base = values[baseline]
    noise = {key: paired_difference(series, base[key]) for key, series in values[CONTROL].items()}
    return {
        name: {key: _cell(key, series, base[key], noise[key]) for key, series in own.items()}
        for name, own in values.items()
        if name != baseline
    }


def _cell(key: str, own: Sequence[float], base: Sequence[float], noise: Estimate) -> Cell:
    difference = paired_difference(own, base)
    return Cell(key, median(own), difference, paired_ratio(own, base), difference.overlaps(noise))
