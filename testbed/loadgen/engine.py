"""Locust inside this process: a locustfile loaded once, and run as often as somebody asks."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import locust
from locust.argument_parser import get_parser
from locust.env import Environment
from locust.util.load_locustfile import load_locustfile

from testbed.errors import BadInput
from testbed.loadgen.cpu import read_cpu_times
from testbed.loadgen.recorder import Recorder, Snapshot
from testbed.loadgen.records import BATCH_S, Histogram, Trial, TrialResult
from testbed.loadgen.stats import keep_microseconds, recorder_of
from testbed.loadgen.steady import is_steady

LEAST_WARMUP_REQUESTS = 500

Batches = list[int]


class Engine:
    """One Locust environment. A process has one: a locustfile's listeners sit in Locust's module-level events."""

    def __init__(self, locustfile: Path) -> None:
        """Load `locustfile`; BadInput where it holds no user class."""
        keep_microseconds()
        user_classes, shapes = load_locustfile(str(locustfile))
        if not user_classes:
            raise BadInput(f"{locustfile.name} defines no Locust user class")
        self._environment = Environment(
            user_classes=list(user_classes.values()),
            shape_class=shapes[0] if shapes else None,
            events=locust.events,
            parsed_options=get_parser().parse_args([]),
            locustfile=locustfile.name,
        )
        self._runner = self._environment.create_local_runner()
        self.recorder: Recorder = recorder_of(self._environment)
        events: Any = self._environment.events
        events.request.add_listener(self.recorder.on_request)
        events.user_error.add_listener(self._on_user_error)
        events.init.fire(environment=self._environment, runner=self._runner, web_ui=None)

    @classmethod
    def of_source(cls, name: str, source: str) -> Engine:
        """From a locustfile's text, as it arrives over a stream."""
        with tempfile.TemporaryDirectory(prefix="locustfile-") as directory:
            path = Path(directory) / name
            path.write_text(source)
            return cls(path)

    @contextmanager
    def users(self, host: str, count: int) -> Iterator[None]:
        """`count` users at work against `host`."""
        self._environment.host = host
        self._runner.start(count, spawn_rate=count)
        try:
            yield
        finally:
            self._runner.stop()

    def trial(self, trial: Trial) -> TrialResult:
        """Warm up until the rate is steady, then measure one window."""
        gevent.sleep(trial.settle_s)
        gc.collect()
        with self.users(trial.host, trial.users):
            batches = self._warm_up(trial)
            warmup = len(batches)
            before, started = self.recorder.snapshots(), read_cpu_times()
            batches += self.batches(trial.window_s)
            ended, after = read_cpu_times(), self.recorder.snapshots()
        latency, errors = difference(before, after)
        return TrialResult(
            seconds=(ended.monotonic_us - started.monotonic_us) / 1e6,
            count=latency.count,
            errors=errors,
            error=self.first_error() if errors else "",
            latency=latency.encode(),
            cpus=ended.since(started, trial.cpus),
            generator_us=ended.process_us - started.process_us,
            batches=tuple(batches),
            warmup_s=round(warmup * BATCH_S, 1),
            steady=is_steady(batches[:warmup]),
        )

    def batches(self, seconds: float, on_batch: Callable[[int], None] = lambda _: None) -> Batches:
        """Wait for `seconds`, counting the requests answered in each 100 ms of them."""
        counted: Batches = []
        seen = self.recorder.requests
        for _ in range(max(round(seconds / BATCH_S), 1)):
            gevent.sleep(BATCH_S)
            now = self.recorder.requests
            counted.append(now - seen)
            on_batch(now - seen)
            seen = now
        return counted

    def first_error(self) -> str:
        """Why the first failed request failed; empty where none did."""
        return next((series.first_error for series in self.recorder.all() if series.first_error), "")

    def _warm_up(self, trial: Trial) -> Batches:
        batches = self.batches(trial.warmup_s)
        while len(batches) * BATCH_S < trial.warmup_limit_s:
            if sum(batches) >= LEAST_WARMUP_REQUESTS and is_steady(batches):
                break
            batches += self.batches(BATCH_S)
        return batches

    def _on_user_error(self, exception: BaseException, **_: Any) -> None:
        self.recorder.series("task", type(exception).__name__).fail(str(exception) or repr(exception))


def difference(
    before: dict[tuple[str, str], Snapshot], after: dict[tuple[str, str], Snapshot]
) -> tuple[Histogram, int]:
    """Latencies and errors between two moments, all request names together."""
    parts = [snapshot.since(before.get(key)) for key, snapshot in after.items()]
    return Histogram.merged(Histogram.of(latencies) for latencies, _ in parts), sum(errors for _, errors in parts)
