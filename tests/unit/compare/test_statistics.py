"""Intervals that keep what they promise: checked by simulation, where the truth is known."""

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.compare.statistics import (
    ALPHA,
    LOOKS,
    Estimate,
    estimate,
    hodges_lehmann,
    paired_difference,
    paired_ratio,
    rank,
)

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=32)


@pytest.mark.parametrize(
    ("count", "alpha", "expected"), [(12, 0.05, 3), (20, 0.05, 6), (12, ALPHA, 2), (20, ALPHA, 5), (32, ALPHA, 9)]
)
def test_ranks_are_those_of_the_sign_test(count: int, alpha: float, expected: int) -> None:
    assert rank(count, alpha) == expected


def test_fewer_than_seven_rounds_have_no_interval() -> None:
    assert rank(6) == 0
    assert rank(7) == 1
    assert estimate([1.0] * 6).low == -math.inf


@pytest.mark.parametrize("count", LOOKS)
def test_a_rank_never_errs_more_than_its_share(count: int) -> None:
    k = rank(count)
    missed = 2 * sum(math.comb(count, successes) for successes in range(k)) / 2**count
    assert missed <= ALPHA
    assert missed + 2 * math.comb(count, k) / 2**count > ALPHA


def test_hodges_lehmann_is_the_median_of_all_pairwise_means() -> None:
    assert hodges_lehmann([1.0, 2.0, 6.0]) == 2.75
    assert hodges_lehmann([1.0, 1.0, 1.0, 1000.0]) < 501


@given(VALUES)
def test_the_centre_lies_within_the_values_and_moves_with_them(values: list[float]) -> None:
    centre = hodges_lehmann(values)
    assert min(values) - 1e-6 <= centre <= max(values) + 1e-6
    assert hodges_lehmann([value + 10 for value in values]) == pytest.approx(centre + 10, abs=1e-5)


@given(st.lists(st.floats(0.1, 1e3), min_size=7, max_size=20))
def test_a_ratio_of_a_constant_factor_is_that_factor(values: list[float]) -> None:
    ratio = paired_ratio([1.5 * value for value in values], values)
    assert ratio.centre == pytest.approx(1.5)
    assert ratio.low == pytest.approx(1.5)
    assert ratio.high == pytest.approx(1.5)


def test_what_moves_a_whole_round_cancels() -> None:
    drift = [random.Random(seed).uniform(50, 150) for seed in range(12)]
    difference = paired_difference([value + 9.4 for value in drift], drift)
    assert difference.centre == pytest.approx(9.4)
    assert difference.half_width == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("count", LOOKS)
@pytest.mark.parametrize("noise", ["normal", "skewed", "heavy"])
def test_intervals_cover_the_truth_as_often_as_they_promise(count: int, noise: str) -> None:
    chance = random.Random(f"{count} {noise}")
    draws: dict[str, Callable[[], float]] = {
        "normal": lambda: chance.gauss(0, 1),
        "skewed": lambda: chance.expovariate(1) - math.log(2),
        "heavy": lambda: math.tan(math.pi * (chance.random() - 0.5)),
    }
    draw = draws[noise]
    trials = 1500
    covered = sum(not estimate([draw() for _ in range(count)]).excludes(0) for _ in range(trials))
    assert covered / trials >= 1 - ALPHA - 0.01


def test_looking_three_times_still_errs_in_at_most_five_percent() -> None:
    chance = random.Random(3)
    trials, alarms = 1500, 0
    for _ in range(trials):
        values = [chance.gauss(0, 1) for _ in range(LOOKS[-1])]
        alarms += any(estimate(values[:count]).excludes(0) for count in LOOKS)
    assert alarms / trials <= 0.05


def test_estimates_know_what_they_exclude_and_overlap() -> None:
    one = Estimate(2, 1, 3)
    assert one.excludes(0)
    assert not one.excludes(1)
    assert one.overlaps(Estimate(4, 3, 5))
    assert not one.overlaps(Estimate(4, 3.1, 5))
    assert one.half_width == 1
