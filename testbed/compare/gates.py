"""What makes a trial unusable, and with it its round: MEASUREMENT.md, 7."""

from __future__ import annotations

from testbed.loadgen.records import TrialResult

MOST_ERRORS = 0.0001
MOST_STEAL = 0.02
MOST_GENERATOR = 0.80
MOST_DROPPED = 0.25
"""Share of rounds; above it there is no verdict."""


def failed_gates(result: TrialResult, *, open_loop: bool = False) -> tuple[str, ...]:
    """The gates that the trial failed, a sentence each.

    A closed loop drives the generator's core as far as the answers allow; how busy it was is reported, and no gate.
    """
    wall_us = result.seconds * 1e6
    failed = []
    if result.errors > MOST_ERRORS * max(result.count, 1):
        failed.append(f"{result.errors:,} of {result.count + result.errors:,} requests failed: {result.error}")
    if not result.count:
        failed.append("no request was answered")
    stolen = sum(use.steal_us for use in result.cpus) / (wall_us * max(len(result.cpus), 1))
    if stolen > MOST_STEAL:
        failed.append(f"the hypervisor took {stolen:.1%} of the CPUs")
    if open_loop and result.generator_us > MOST_GENERATOR * wall_us:
        failed.append(f"the generator's core was {result.generator_us / wall_us:.0%} busy")
    return tuple(failed)
