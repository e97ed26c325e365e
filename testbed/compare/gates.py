"""What makes a trial unusable, and with it its round: MEASUREMENT.md, 7."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.compare.measurement import Phase

MOST_ERRORS = 0.0001
MOST_STEAL = 0.02
MOST_GENERATOR = 0.80
LEAST_REQUESTS = 100
"""Of the lone user, in its window."""
MOST_DROPPED = 0.25
"""Share of rounds; above it there is no verdict."""


def failed_gates(lone: Phase, loaded: Phase, *, open_loop: bool = False) -> tuple[str, ...]:
    """The gates that a trial failed, a sentence each.

    A closed loop drives the generator's core as far as the answers allow; how busy it was is reported, and no gate.
    """
    failed = [sentence for phase in (lone, loaded) for sentence in _failed(phase)]
    if lone.count < LEAST_REQUESTS and not failed:
        failed.append(f"the lone user made {lone.count} requests, too few for a median; let its locustfile wait less")
    if open_loop and loaded.generator_busy > MOST_GENERATOR:
        failed.append(f"the generator's core was {loaded.generator_busy:.0%} busy")
    return tuple(failed)


def _failed(phase: Phase) -> Iterator[str]:
    users = "1 user" if phase.users == 1 else f"{phase.users} users"
    if phase.errors > MOST_ERRORS * max(phase.count, 1):
        yield f"{users}: {phase.errors:,} of {phase.count + phase.errors:,} requests failed: {phase.error}"
    elif not phase.count:
        yield f"{users}: no request was answered"
    if phase.steal > MOST_STEAL:
        yield f"{users}: the hypervisor took {phase.steal:.1%} of the CPUs"
