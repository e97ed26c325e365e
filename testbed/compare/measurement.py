"""The record of a trial: what was measured, in which round, of which variant. One JSON line each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.loadgen.records import CpuUse, Histogram, TrialResult, to_line

FILE = "measurements.jsonl"


@dataclass(frozen=True)
class Phase:
    """One window of a trial: so many users at once. Times are in microseconds."""

    users: int
    seconds: float
    count: int
    errors: int
    error: str
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    requests_per_s: float
    busy_us_per_request: float
    """Busy time of the pinned CPUs, softirq included: client, server, the kernel between them, and any neighbour."""
    softirq_us_per_request: float
    generator_us_per_request: float
    """CPU time of the generator's process, with the packets that the kernel handled on its behalf."""
    server_us_per_request: float
    """The same of the server's processes; 0 where they cannot be seen."""
    generator_busy: float
    """Its share of its CPU, 0 to 1."""
    steal: float
    """Share of the pinned CPUs that the hypervisor took, 0 to 1."""
    warmup_s: float
    steady: bool
    latency: str
    """HdrHistogram V2, base64"""
    cpus: tuple[CpuUse, ...]
    batches: tuple[int, ...]
    """Requests per 100 ms, warm-up included."""

    @property
    def cpu_us_per_request(self) -> float:
        """Of both ends, in their processes; where the server's cannot be seen, the busy time of the pinned CPUs."""
        if not self.server_us_per_request:
            return self.busy_us_per_request
        return self.generator_us_per_request + self.server_us_per_request

    @property
    def elsewhere(self) -> float:
        """Share of the pinned CPUs' time, 0 to 1, spent in neither end: other programs, mostly."""
        if not self.server_us_per_request or not self.cpus:
            return 0.0
        spent_us = (self.busy_us_per_request - self.cpu_us_per_request) * max(self.count, 1)
        return max(spent_us / (self.seconds * 1e6 * len(self.cpus)), 0.0)

    @property
    def histogram(self) -> Histogram:
        """All latencies of the window."""
        return Histogram.decode(self.latency)

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Phase:
        """What `dataclasses.asdict` made of one."""
        cpus = tuple(CpuUse(**use) for use in doc["cpus"])
        return cls(**{**doc, "cpus": cpus, "batches": tuple(doc["batches"])})


@dataclass(frozen=True)
class Slot:
    """Which trial this is."""

    round: int
    position: int
    """The place in the round, from 0."""
    variant: str
    """Its name, or `schedule.CONTROL` for the baseline's second measurement."""
    cluster: str
    started: str
    """RFC 3339, UTC"""


@dataclass(frozen=True)
class Measurement(Slot):
    """One variant in one round: first under a lone user, then under load.

    A lone user's latency is the path's own: it never waits for another user's request. Under a closed loop of many
    users latency is mostly the queue in front of the busiest core, and says what throughput says already.
    """

    lone: Phase
    loaded: Phase
    failed_gates: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON document."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Measurement:
        """What `to_json` wrote."""
        phases = {name: Phase.from_json(doc[name]) for name in ("lone", "loaded")}
        return cls(**{**doc, **phases, "failed_gates": tuple(doc["failed_gates"])})


def measurement(slot: Slot, lone: Phase, loaded: Phase, gates: tuple[str, ...]) -> Measurement:
    """The record of a trial that has run."""
    return Measurement(**dataclasses.asdict(slot), lone=lone, loaded=loaded, failed_gates=gates)


def phase(users: int, result: TrialResult, server_us: int = 0) -> Phase:
    """The figures of one window. Without a single answered request every one of them is 0.

    `server_us` is the CPU time of the server's processes in warm-up and window together.
    """
    latency = Histogram.decode(result.latency)
    count = max(result.count, 1)
    wall_us = result.seconds * 1e6
    return Phase(
        users=users,
        seconds=round(result.seconds, 6),
        count=result.count,
        errors=result.errors,
        error=result.error,
        p50_us=round(latency.percentile(50), 3),
        p90_us=round(latency.percentile(90), 3),
        p99_us=round(latency.percentile(99), 3),
        p999_us=round(latency.percentile(99.9), 3),
        requests_per_s=round(result.count / result.seconds, 2),
        busy_us_per_request=round(sum(use.busy_us for use in result.cpus) / count, 4),
        softirq_us_per_request=round(sum(use.softirq_us for use in result.cpus) / count, 4),
        generator_us_per_request=round(result.generator_us / count, 4),
        server_us_per_request=round(server_us / max(sum(result.batches), 1), 4),
        generator_busy=round(result.generator_us / wall_us, 4),
        steal=round(sum(use.steal_us for use in result.cpus) / (wall_us * max(len(result.cpus), 1)), 5),
        warmup_s=round(result.warmup_s, 3),
        steady=result.steady,
        latency=result.latency,
        cpus=result.cpus,
        batches=result.batches,
    )


def begin(directory: Path) -> Path:
    """An empty file of measurements in `directory`, which is made where it does not exist."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / FILE
    file.write_text("")
    return file


def append(file: Path, one: Measurement) -> None:
    """Add a line to the file; it is on disk when this returns from the write."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(to_line(one.to_json()))


def read(file: Path) -> list[Measurement]:
    """Every line of the file, in order. A last line that was cut off (the machine died) is left out."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [Measurement.from_json(json.loads(line)) for line in lines if line.endswith("\n")]


def by_round(measurements: Iterable[Measurement]) -> dict[int, dict[str, Measurement]]:
    """Round → variant → measurement."""
    found: dict[int, dict[str, Measurement]] = {}
    for one in measurements:
        found.setdefault(one.round, {})[one.variant] = one
    return found
