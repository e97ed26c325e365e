"""Counting latencies in place, and what a window saw."""

from testbed.loadgen.recorder import FAST_US, Recorder


def test_a_window_sees_what_came_between_two_snapshots() -> None:
    recorder = Recorder()
    series = recorder.series("GET", "/")
    series.record(50_000)
    before = series.snapshot()
    series.record(50_000)
    series.record(70_999)
    series.fail("refused")
    assert series.snapshot().since(before) == ({50: 1, 70: 1}, 1)


def test_slow_requests_are_counted_too() -> None:
    series = Recorder().series("GET", "/")
    series.record(FAST_US * 1000)
    series.record((FAST_US + 5) * 1000)
    before = series.snapshot()
    series.record((FAST_US + 5) * 1000)
    assert series.requests == 3
    assert series.snapshot().since(before) == ({FAST_US + 5: 1}, 0)


def test_stock_users_are_heard_through_locusts_event() -> None:
    recorder = Recorder()
    recorder.on_request("GET", "/", 0.0634, response_length=3)
    recorder.on_request("GET", "/", 1.0, exception=OSError("refused"), response_length=0)
    (series,) = recorder.all()
    assert series.snapshot().since(None) == ({63: 1}, 1)
    assert series.first_error == "refused"
    assert recorder.requests == 1


def test_requests_of_a_name_share_a_series() -> None:
    recorder = Recorder()
    assert recorder.series("GET", "/") is recorder.series("GET", "/")
    assert recorder.series("GET", "/") is not recorder.series("POST", "/")
