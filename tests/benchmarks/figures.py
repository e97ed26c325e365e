"""What a benchmark is: a name, targets as data, and a function that measures. A figure is never a pass or a fail."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LOWER, HIGHER = "lower", "higher"


@dataclass(frozen=True)
class Target:
    """One figure that is asked for."""

    name: str
    unit: str
    target: float
    better: str
    what: str


@dataclass(frozen=True)
class Measured:
    """A value and how it came about. With an interval, the target counts as met if the interval reaches it."""

    value: float
    how: str = ""
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bench:
    """Measures all its targets in one go; where it cannot, `why_not` says so before it is begun."""

    name: str
    targets: tuple[Target, ...]
    measure: Callable[[], Mapping[str, Measured]]
    why_not: Callable[[], str] = lambda: ""


@dataclass(frozen=True)
class Figure:
    """One line of build/bench.json. Value and met are None where nothing could be measured; `how` then says why."""

    name: str
    value: float | None
    unit: str
    target: float
    better: str
    met: bool | None
    command: str
    what: str
    how: str
    interval: tuple[float, float] | None = None


def figures(bench: Bench) -> list[Figure]:
    """Run a benchmark."""
    if reason := bench.why_not():
        return [_figure(bench, target, None, reason) for target in bench.targets]
    measured = bench.measure()
    return [_figure(bench, target, measured[target.name], "") for target in bench.targets]


def median_of(values: Sequence[float], unit: str, digits: int = 2) -> Measured:
    """The median, with every value told."""
    told = ", ".join(f"{value:.{digits}f}" for value in sorted(values))
    return Measured(statistics.median(values), f"median of {told} {unit}")


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def is_met(target: Target, measured: Measured) -> bool:
    """Whether the value, or the nearer end of its interval, is on the right side of the target."""
    if target.better == LOWER:
        return (measured.interval[0] if measured.interval else measured.value) <= target.target
    return (measured.interval[1] if measured.interval else measured.value) >= target.target


def _figure(bench: Bench, target: Target, measured: Measured | None, reason: str) -> Figure:
    return Figure(
        name=target.name,
        value=round(measured.value, 4) if measured else None,
        unit=target.unit,
        target=target.target,
        better=target.better,
        met=is_met(target, measured) if measured else None,
        command=f"make bench NAME={bench.name}",
        what=target.what,
        how=measured.how if measured else reason,
        interval=measured.interval if measured else None,
    )
