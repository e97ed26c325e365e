"""Histograms and the records that travel."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.loadgen.records import CpuUse, Histogram, LoadRecord, Trial, TrialResult, bucket_width, to_line

LATENCIES = st.dictionaries(st.integers(0, 10_000_000), st.integers(1, 1000), max_size=30)


@given(LATENCIES)
def test_encoding_loses_nothing(latencies: dict[int, int]) -> None:
    histogram = Histogram.of(latencies)
    assert Histogram.decode(histogram.encode()) == histogram


@given(LATENCIES, LATENCIES)
def test_merging_adds_counts(some: dict[int, int], others: dict[int, int]) -> None:
    merged = Histogram.merged([Histogram.of(some), Histogram.of(others)])
    assert merged.count == sum(some.values()) + sum(others.values())


@given(LATENCIES)
def test_a_bucket_is_never_wider_than_a_thousandth(latencies: dict[int, int]) -> None:
    for value in latencies:
        assert bucket_width(value) <= max(1, value / 1000)


def test_microseconds_are_exact_up_to_two_milliseconds() -> None:
    assert {bucket_width(value) for value in range(2048)} == {1}
    assert bucket_width(2048) == 2


def test_the_median_is_interpolated_within_its_microsecond() -> None:
    histogram = Histogram.of({10: 1, 11: 2, 12: 1})
    assert histogram.percentile(50) == pytest.approx(11.5)
    assert Histogram.of({11: 75, 12: 25}).percentile(50) == pytest.approx(11 + 50 / 75)


def test_percentiles_of_nothing_are_zero() -> None:
    assert Histogram().percentile(50) == 0
    assert Histogram().mean_us == 0


def test_percentiles_grow() -> None:
    histogram = Histogram.of(dict.fromkeys(range(1, 1000), 1))
    values = [histogram.percentile(percent) for percent in (0, 1, 50, 99, 100)]
    assert values == sorted(values)
    assert values[-1] == 1000


def test_records_survive_the_wire() -> None:
    trial = Trial("http://10.0.0.1:80", 16, 2.0, cpus=(0, 1))
    result = TrialResult(2.0, 5, 0, "", Histogram.of({7: 5}).encode(), (CpuUse(0, 1, 2, 3),), 9, (1, 4), 0.5, True)
    record = LoadRecord("http://x", 1, 1.0, 2, 0, "", 2.0, 1.0, 1.0, 1.0, "", ({"name": "/"},))
    assert Trial.from_json(json.loads(to_line(trial.to_json()))) == trial
    assert TrialResult.from_json(json.loads(to_line(result.to_json()))) == result
    assert LoadRecord.from_json(json.loads(to_line(record.to_json()))) == record
