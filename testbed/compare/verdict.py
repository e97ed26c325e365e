"""The answer, in words: what each variant costs against the baseline, and how far that may be believed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from testbed.compare.analysis import Analysis, Cell
from testbed.compare.environment import Environment
from testbed.compare.gates import MOST_DROPPED
from testbed.compare.measurement import Measurement
from testbed.compare.path import DISPROVED, UNPROVEN
from testbed.compare.schedule import CONTROL
from testbed.compare.statistics import LOOKS, Estimate, rank

VALID, SUSPECT, INVALID = "VALID", "SUSPECT", "INVALID"
MOST_ELSEWHERE = 0.15
"""Share of the pinned CPUs' time in neither end, the median over all trials, above which it is suspect."""
MOST_UNSTEADY = 0.25
"""Share of trials whose warm-up did not settle, above which the comparison is suspect."""


@dataclass(frozen=True)
class Verdict:
    """`status` for the comparison as a whole, why it is not VALID, and a sentence for each variant."""

    status: str
    doubts: tuple[str, ...]
    headline: str
    """The primary cell's variant, in one sentence."""
    sentences: Mapping[str, str]


def verdict(analysis: Analysis, environment: Environment, measurements: Sequence[Measurement]) -> Verdict:
    """Judge the comparison."""
    fatal = tuple(_fatal(analysis, environment))
    doubts = tuple(_doubts(analysis, environment, measurements))
    status = INVALID if fatal else SUSPECT if doubts else VALID
    base = baseline_name(environment)
    sentences = {name: sentence(name, cells, base) for name, cells in analysis.cells.items() if name != CONTROL}
    primary = sentences.get(environment.primary[0], "")
    headline = primary if not fatal and primary else f"No verdict: {'; '.join(fatal) or 'nothing was measured'}."
    return Verdict(status, fatal + doubts, headline, sentences)


def baseline_name(environment: Environment) -> str:
    """`HostNetwork` where that is what the baseline is; its own name otherwise."""
    info = environment.variants[environment.baseline]
    return "HostNetwork" if info.client_host_network and info.target_host_network else environment.baseline


def sentence(name: str, cells: Mapping[str, Cell], base: str) -> str:
    """`vxlan adds 9.4 µs to the median request (9.1 to 9.8), 1.63 times HostNetwork, and 1.6 times the CPU …`"""
    return f"{_latency(name, cells['p50'], base)}{_cpu(cells['cpu'], base)}."


def interval(estimate: Estimate, digits: int = 1) -> str:
    """`9.1 to 9.8`"""
    return f"{_number(estimate.low, digits)} to {_number(estimate.high, digits)}"


def _latency(name: str, cell: Cell, base: str) -> str:
    shift = cell.difference
    if not math.isfinite(shift.low):
        return f"{name}: {_number(shift.centre, 1)} µs against {base} in the median request so far, no interval yet"
    if cell.within_noise:
        return (
            f"{name} shows no difference from {base} in the median request that exceeds the noise of this machine "
            f"({interval(shift)} µs)"
        )
    amount = f"{abs(shift.centre):,.1f} µs"
    bounds = interval(shift if shift.centre > 0 else Estimate(-shift.centre, -shift.high, -shift.low))
    change = f"adds {amount} to" if shift.centre > 0 else f"takes {amount} off"
    return f"{name} {change} the median request ({bounds}), {cell.ratio.centre:.2f} times {base}"


def _cpu(cell: Cell, base: str) -> str:
    if not math.isfinite(cell.difference.low):
        return ""
    if cell.within_noise:
        return f", and about the CPU per request of {base}"
    return f", and {cell.ratio.centre:.2f} times the CPU per request"


def _fatal(analysis: Analysis, environment: Environment) -> Iterator[str]:
    counted, dropped = len(analysis.rounds), len(analysis.dropped)
    if not rank(counted):
        yield f"{_rounds(counted)} {'is' if counted == 1 else 'are'} too few for an interval"
    if dropped > MOST_DROPPED * (counted + dropped):
        yield f"{dropped} of {_rounds(counted + dropped)} had to be dropped"
    for name, info in environment.variants.items():
        if info.path == DISPROVED:
            yield f"{name} did not take its path ({info.path_detail})"


def _doubts(analysis: Analysis, environment: Environment, measurements: Sequence[Measurement]) -> Iterator[str]:
    if rank(len(analysis.rounds)) and len(analysis.rounds) < LOOKS[0]:
        yield f"only {_rounds(len(analysis.rounds))} count, fewer than {LOOKS[0]}"
    for name, info in environment.variants.items():
        if info.path == UNPROVEN:
            yield f"{name}: path unproven ({info.path_detail})"
    for role, values in environment.placement["nice"].items():
        if len(values) > 1:
            yield f"the {role}s of the variants have different priorities (nice {', '.join(map(str, values))})"
    yield from _unrest(measurements)
    for metric in ("p50", "cpu") if analysis.rounds else ():
        control = analysis.cell(CONTROL, metric).difference
        if control.excludes(0):
            yield f"the baseline differs from itself in {metric} ({interval(control, 2)} µs)"


def _unrest(measurements: Sequence[Measurement]) -> Iterator[str]:
    """What the machine did beside the measurement."""
    elsewhere = median([one.loaded.elsewhere for one in measurements]) if measurements else 0.0
    if elsewhere > MOST_ELSEWHERE:
        yield f"other programs took {elsewhere:.0%} of the pinned CPUs; close them and measure again"
    unsteady = sum(not one.loaded.steady for one in measurements)
    if unsteady > MOST_UNSTEADY * max(len(measurements), 1):
        yield f"in {unsteady} of {len(measurements)} trials the rate had not settled when the window began"


def _rounds(count: int) -> str:
    return "1 round" if count == 1 else f"{count} rounds"


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".replace("-", "−")  # noqa: RUF001 - a minus sign, not a hyphen
