"""A locustfile, run once: progress on stderr, one JSON record on stdout."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TextIO

from testbed.loadgen.cpu import pin
from testbed.loadgen.engine import Engine, difference
from testbed.loadgen.recorder import Snapshot
from testbed.loadgen.records import BATCH_S, Histogram, LoadRecord, to_line

REPORT_EVERY_S = 1.0


def run(locustfile: str, host: str, users: int, seconds: float, cpus: tuple[int, ...], answers: TextIO) -> None:
    """Load `host` with `users` for `seconds`; `locustfile` is a path, or `-` for its text on stdin."""
    pin(cpus)
    engine = Engine.of_source("locustfile.py", sys.stdin.read()) if locustfile == "-" else Engine(Path(locustfile))
    answers.write(to_line(measured(engine, host, users, seconds, sys.stderr).to_json()))
    answers.flush()


def measured(engine: Engine, host: str, users: int, seconds: float, progress: TextIO) -> LoadRecord:
    """The whole run as one record, a line of progress every second."""
    started = time.monotonic()
    with engine.users(host, users):
        previous: dict[tuple[str, str], Snapshot] = {}
        while (left := seconds - (time.monotonic() - started)) >= BATCH_S / 2:
            engine.batches(min(REPORT_EVERY_S, left))
            now = engine.recorder.snapshots()
            progress.write(progress_line(time.monotonic() - started, *difference(previous, now)))
            progress.flush()
            previous = now
        elapsed = time.monotonic() - started
        final = engine.recorder.snapshots()
    return record(engine, final, host, users, elapsed)


def progress_line(elapsed: float, latency: Histogram, errors: int) -> str:
    """What the last second was like."""
    p50, p99 = latency.percentile(50), latency.percentile(99)
    return f"{elapsed:6.1f} s  {latency.count:>9,} requests  p50 {p50:,.0f} µs  p99 {p99:,.0f} µs  {errors:,} errors\n"


def record(engine: Engine, final: dict[tuple[str, str], Snapshot], host: str, users: int, seconds: float) -> LoadRecord:
    """The record of everything up to `final`."""
    latency, errors = difference({}, final)
    rows = []
    for (method, name), snapshot in sorted(final.items()):
        own, own_errors = difference({}, {(method, name): snapshot})
        rows.append(
            {"method": method, "name": name, "requests": own.count, "errors": own_errors}
            | {f"p{percent}_us": round(own.percentile(percent), 1) for percent in (50, 90, 99)}
        )
    return LoadRecord(
        host=host,
        users=users,
        seconds=round(seconds, 3),
        requests=latency.count,
        errors=errors,
        error=engine.first_error(),
        requests_per_s=round(latency.count / seconds, 1),
        p50_us=round(latency.percentile(50), 1),
        p90_us=round(latency.percentile(90), 1),
        p99_us=round(latency.percentile(99), 1),
        latency=latency.encode(),
        names=tuple(rows),
    )
