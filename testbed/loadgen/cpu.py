"""Which CPUs this process may use, and what each of them did: sched_setaffinity(2), /proc/stat."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from testbed.loadgen.records import CpuUse

STAT = Path("/proc/stat")
_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
_IDLE, _IOWAIT, _SOFTIRQ, _STEAL = 3, 4, 6, 7


@dataclass(frozen=True)
class CpuTimes:
    """All CPUs at one moment."""

    monotonic_us: int
    process_us: int
    """Of this process, all threads."""
    ticks: dict[int, tuple[int, ...]]
    """CPU → the columns of its line in /proc/stat (proc(5)): user nice system idle iowait irq softirq steal …"""

    def since(self, earlier: CpuTimes, cpus: Iterable[int]) -> tuple[CpuUse, ...]:
        """What each of `cpus` did after `earlier`."""
        wall_us = self.monotonic_us - earlier.monotonic_us
        return tuple(_use(cpu, wall_us, earlier.ticks[cpu], self.ticks[cpu]) for cpu in cpus if cpu in self.ticks)


def read_cpu_times(stat: str | None = None) -> CpuTimes:
    """The clocks now; `stat` is the text of /proc/stat where it was read elsewhere."""
    text = STAT.read_text() if stat is None else stat
    lines = (line.split() for line in text.splitlines() if line.startswith("cpu") and line[3:4].isdigit())
    return CpuTimes(
        monotonic_us=time.perf_counter_ns() // 1000,
        process_us=time.process_time_ns() // 1000,
        ticks={int(name[3:]): tuple(map(int, columns)) for name, *columns in lines},
    )


def pin(cpus: Iterable[int]) -> tuple[int, ...]:
    """Keep this process on those CPUs (none given: leave it) and return where it may run now."""
    if wanted := set(cpus):
        os.sched_setaffinity(0, wanted)
    return tuple(sorted(os.sched_getaffinity(0)))


def _use(cpu: int, wall_us: int, before: tuple[int, ...], after: tuple[int, ...]) -> CpuUse:
    spent = [(late - early) * _TICK_US for early, late in zip(before, after, strict=True)]
    # Idle is measured by the kernel's clock, busy only sampled by its tick: the difference is the better figure.
    busy_us = wall_us - spent[_IDLE] - spent[_IOWAIT] - spent[_STEAL]
    return CpuUse(cpu, min(max(busy_us, 0), wall_us), spent[_SOFTIRQ], spent[_STEAL])
