"""What a comparison comes to: cells, verdict, words. Pure, from the measurements and their environment alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.compare import environment as environments
from testbed.compare import measurement as measurements_
from testbed.compare.analysis import Analysis, analyse
from testbed.compare.environment import Environment
from testbed.compare.measurement import Measurement
from testbed.compare.verdict import Verdict, verdict
from testbed.errors import BadInput


@dataclass(frozen=True)
class Results:
    """A comparison that has been measured, wholly or in part."""

    environment: Environment
    measurements: tuple[Measurement, ...]
    analysis: Analysis
    verdict: Verdict


def results(environment: Environment, measurements: Sequence[Measurement]) -> Results:
    """Everything that follows from the data."""
    analysis = analyse(measurements, environment.baseline, list(environment.variants))
    return Results(environment, tuple(measurements), analysis, verdict(analysis, environment, measurements))


def read_results(directory: Path) -> Results:
    """From what a comparison left in `directory`; BadInput where it is not one."""
    for name in (environments.FILE, measurements_.FILE):
        if not (directory / name).is_file():
            raise BadInput(f"{directory} holds no {name}; give the directory that `testbed compare` wrote")
    return results(Environment.read(directory), measurements_.read(directory / measurements_.FILE))
