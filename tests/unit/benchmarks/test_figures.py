from __future__ import annotations

from tests.benchmarks.figures import HIGHER, LOWER, Bench, Measured, Target, figures, median_of, percentile

TARGET = Target("speed", "s", 2.0, LOWER, "how long it takes")


def figure_of(measured: Measured, target: Target = TARGET) -> bool | None:
    return figures(Bench("speed", (target,), lambda: {"speed": measured}))[0].met


def test_a_value_on_the_right_side_of_its_target_meets_it() -> None:
    assert figure_of(Measured(2.0))
    assert not figure_of(Measured(2.01))
    assert figure_of(Measured(2.01), Target("speed", "/s", 2.0, HIGHER, "how much it does"))


def test_an_interval_meets_a_target_that_it_reaches() -> None:
    assert figure_of(Measured(2.1, interval=(1.9, 2.3)))
    assert not figure_of(Measured(2.1, interval=(2.01, 2.2)))


def test_what_cannot_be_measured_is_neither_met_nor_missed() -> None:
    (figure,) = figures(Bench("speed", (TARGET,), lambda: {}, lambda: "no engine"))
    assert (figure.value, figure.met, figure.how) == (None, None, "no engine")


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert percentile([float(n) for n in range(1, 101)], 99) == 99
    assert percentile([5.0], 99) == 5


def test_a_median_tells_every_value() -> None:
    assert median_of([3.0, 1.0, 2.0], "s") == Measured(2.0, "median of 1.00, 2.00, 3.00 s")
