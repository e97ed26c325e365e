"""When warm-up is over."""

import random

from testbed.loadgen.steady import is_steady, truncation


def test_a_level_rate_is_steady() -> None:
    chance = random.Random(1)
    assert is_steady([1000 + chance.gauss(0, 10) for _ in range(10)])


def test_a_slow_start_is_cut_off_and_the_rest_is_steady() -> None:
    rates = [100.0, 500.0, 1000, 1001, 999, 1000, 1000, 1001, 999, 1000]
    assert truncation(rates) == 2
    assert is_steady(rates)


def test_a_rate_that_still_climbs_is_not_steady() -> None:
    assert not is_steady([float(100 * step) for step in range(1, 11)])


def test_few_batches_tell_nothing() -> None:
    assert not is_steady([1000.0] * 4)
