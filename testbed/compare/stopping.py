"""When have there been enough rounds? Pure: it sees the analysis and the clock."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.compare.analysis import METRICS, Analysis
from testbed.compare.gates import MOST_DROPPED
from testbed.compare.schedule import CONTROL
from testbed.compare.statistics import LOOKS

TRIAL_OVERHEAD_S = 0.1
OVERTIME = 1.2
"""How far beyond its budget a comparison may go on in order to reach the least number of rounds."""


@dataclass(frozen=True)
class Pace:
    """How long things take. Seconds."""

    settle_s: float = 0.3
    lone_warmup_s: float = 0.2
    lone_window_s: float = 0.6
    warmup_s: float = 0.5
    warmup_limit_s: float = 1.0
    window_s: float = 2.0
    budget_s: float = 280.0
    """For all rounds together. The budget looks at no result, so ending by it needs no correction."""

    def round_s(self, entries: int) -> float:
        """How long a round of so many trials will about take."""
        lone = self.lone_warmup_s + self.lone_window_s
        return entries * (self.settle_s + lone + self.warmup_s + self.window_s + TRIAL_OVERHEAD_S)

    def rounds(self, entries: int) -> int:
        """How many rounds fit into the budget, at most those of the last look."""
        return max(1, min(LOOKS[-1], int(self.budget_s / self.round_s(entries))))


def stop_reason(analysis: Analysis, measured: int, elapsed_s: float, pace: Pace) -> str:
    """Why to stop after `measured` rounds, in words; empty to go on."""
    valid = len(analysis.rounds)
    if valid >= LOOKS[-1]:
        return f"{valid} rounds, the most that are measured"
    if valid in LOOKS and is_precise(analysis):
        return f"precise enough after {valid} rounds"
    if measured > LOOKS[0] and len(analysis.dropped) > MOST_DROPPED * measured:
        return f"{len(analysis.dropped)} of {measured} rounds had to be dropped"
    budget_s = pace.budget_s if valid >= LOOKS[0] else pace.budget_s * OVERTIME
    if elapsed_s + elapsed_s / max(measured, 1) > budget_s:
        return f"the time for rounds ({pace.budget_s:g} s) was used up after {measured} rounds"
    return ""


def is_precise(analysis: Analysis) -> bool:
    """Whether every variant's ratio is known as closely as each metric asks."""
    return all(
        analysis.cell(variant, metric.key).ratio.half_width <= metric.enough
        for variant in analysis.cells
        if variant != CONTROL
        for metric in METRICS.values()
        if metric.enough
    )
