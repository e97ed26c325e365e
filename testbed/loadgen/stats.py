"""Locust's statistics, made fit for latencies below a millisecond, and fed by our recorder."""

from __future__ import annotations

from typing import Any

import gevent
from locust import stats as locust_stats

from testbed.loadgen.recorder import Recorder
from testbed.loadgen.records import bucket_width

MERGE_EVERY_S = 1.0


def microsecond_bucket(response_time: float) -> float:
    """A response time in ms, kept to three digits and at best a microsecond; Locust's own keeps whole milliseconds."""
    us = max(round(response_time * 1000), 0)
    return (us - us % bucket_width(us)) / 1000


def keep_microseconds() -> None:
    """Replace Locust's rounding, which is looked up as a global of its module at each request (Locust ≥ 2.43.4).

    In a distributed run master and workers must both do it: it happens wherever a locustfile imports our user.
    """
    locust_stats.bucket_response_time = microsecond_bucket  # type: ignore[assignment]  # it says int; any number will do


def recorder_of(environment: Any) -> Recorder:
    """The recorder of a Locust environment, made at first use and merged into its statistics every second."""
    recorder: Recorder | None = getattr(environment, "testbed_recorder", None)
    if recorder is None:
        recorder = environment.testbed_recorder = Recorder()
        _keep_merging(environment, recorder)
    return recorder


def _keep_merging(environment: Any, recorder: Recorder) -> None:
    def merge(**_: Any) -> None:
        recorder.merge_into(environment.stats)

    def merge_every_second() -> None:
        while True:
            gevent.sleep(MERGE_EVERY_S)
            merge()

    environment.events.test_stop.add_listener(merge)
    # Runs before Locust's own listener, which empties the statistics into the worker's report.
    environment.events.report_to_master._handlers.insert(0, merge)
    gevent.spawn(merge_every_second)
