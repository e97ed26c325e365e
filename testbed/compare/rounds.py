"""Round after round until there are enough: each trial is written to disk before the next begins."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from testbed.api.objects import now_micro
from testbed.compare.analysis import analyse
from testbed.compare.gates import failed_gates
from testbed.compare.load import Comparison
from testbed.compare.measurement import Measurement, Phase, Slot, append, measurement
from testbed.compare.placement import Placement
from testbed.compare.schedule import CONTROL, rounds
from testbed.compare.stopping import Pace, stop_reason
from testbed.loadgen.records import Trial
from testbed.runtime.protocol import Progress


class Trials(Protocol):
    """What a loop of rounds needs of a `Bench`."""

    @property
    def routes(self) -> Mapping[str, Any]:
        """Variant → its route, whose `info` is a `VariantInfo`."""
        ...

    async def forget_connections(self, variant: str) -> None:
        """Delete what the nodes track of earlier trials."""
        ...

    async def measure(self, variant: str, trial: Trial) -> Phase:
        """Measure one window."""
        ...


class Measuring:
    """A bench, and what was measured on it so far."""

    def __init__(self, comparison: Comparison, bench: Trials, placement: Placement, pace: Pace, file: Path) -> None:
        self._comparison, self._bench, self._placement, self._pace = comparison, bench, placement, pace
        self._file = file
        self._measured: list[Measurement] = []

    async def run(self, seed: int, progress: Progress) -> str:
        """Measure rounds in the order that `seed` gives; why there were no more."""
        variants = list(self._comparison.variants)
        entries = (*variants, CONTROL)
        planned = self._pace.rounds(len(entries))
        started = time.monotonic()
        for number, order in zip(itertools.count(1), rounds(entries, seed), strict=False):
            for position, entry in enumerate(order):
                one = await self._trial(number, position, entry)
                progress(f"round {number} of about {planned}: {told(one)}")
            analysis = analyse(self._measured, self._comparison.baseline, variants)
            if reason := stop_reason(analysis, number, time.monotonic() - started, self._pace):
                return reason
        raise AssertionError("the schedule has no end")

    async def _trial(self, number: int, position: int, entry: str) -> Measurement:
        comparison, pace = self._comparison, self._pace
        variant = comparison.baseline if entry == CONTROL else entry
        info = self._bench.routes[variant].info
        slot = Slot(number, position, entry, info.cluster, now_micro())
        await self._bench.forget_connections(variant)
        lone, loaded = [
            await self._bench.measure(variant, trial)
            for trial in trials(info.url, comparison.users, pace, self._placement)
        ]
        one = measurement(slot, lone, loaded, failed_gates(lone, loaded))
        append(self._file, one)
        self._measured.append(one)
        return one


def trials(url: str, users: int, pace: Pace, placement: Placement) -> tuple[Trial, Trial]:
    """The two phases of a trial: one user alone, then all of them."""
    lone = Trial(
        host=url,
        users=1,
        window_s=pace.lone_window_s,
        warmup_s=pace.lone_warmup_s,
        warmup_limit_s=pace.lone_warmup_s,
        settle_s=pace.settle_s,
        cpus=placement.cpus,
    )
    loaded = replace(
        lone,
        users=users,
        window_s=pace.window_s,
        warmup_s=pace.warmup_s,
        warmup_limit_s=pace.warmup_limit_s,
        settle_s=0.0,
    )
    return lone, loaded


def told(one: Measurement) -> str:
    """A trial, in the words of a line of progress."""
    if one.failed_gates:
        return f"{one.variant} is dropped, {one.failed_gates[0]}"
    return f"{one.variant}, {one.lone.p50_us:,.1f} µs alone, {one.loaded.requests_per_s:,.0f} requests/s under load"
