"""From measurements to cells, verdicts and the decision to stop."""

from dataclasses import replace

import pytest

from testbed.compare.analysis import analyse
from testbed.compare.environment import Environment
from testbed.compare.measurement import Measurement
from testbed.compare.results import results
from testbed.compare.schedule import CONTROL
from testbed.compare.stopping import Pace, is_precise, stop_reason
from testbed.compare.verdict import INVALID, SUSPECT, VALID
from tests.unit.compare.synthetic import EFFECTS_US, environment, measurements

VARIANTS = ["host", "vxlan", "clusterip", "host-gw"]


def test_known_effects_are_found_within_their_intervals() -> None:
    analysis = analyse(measurements(20), "host", VARIANTS)
    for name in ("vxlan", "clusterip", "host-gw", CONTROL):
        difference = analysis.cell(name, "p50").difference
        assert difference.low <= EFFECTS_US[name] * 1.02 + 0.3
        assert difference.high >= EFFECTS_US[name] * 0.98 - 0.3
    assert analysis.cell(CONTROL, "p50").within_noise
    assert not analysis.cell("vxlan", "p50").within_noise


def test_a_failed_gate_drops_the_whole_round() -> None:
    data = measurements(12)
    data[3] = replace(data[3], failed_gates=("the hypervisor took 5.0% of the CPUs",))
    analysis = analyse(data, "host", VARIANTS)
    assert analysis.rounds == tuple(range(2, 13))
    assert [one.round for one in analysis.dropped] == [1]
    assert "hypervisor" in analysis.dropped[0].reasons[0]


def test_an_unfinished_round_does_not_count() -> None:
    assert analyse(measurements(12)[:-1], "host", VARIANTS).rounds == tuple(range(1, 12))


def test_a_tail_that_was_hardly_seen_has_no_cell() -> None:
    data = measurements(12)
    data[0] = replace(data[0], lone=replace(data[0].lone, count=9_999))
    analysis = analyse(data, "host", VARIANTS)
    assert "p99" not in analysis.cells["vxlan"]
    assert {"p50", "loaded_p99", "cpu"} <= analysis.cells["vxlan"].keys()


def test_nothing_measured_is_no_analysis_and_no_error() -> None:
    analysis = analyse([], "host", VARIANTS)
    assert not analysis.rounds
    assert not analysis.cells


def test_the_verdict_says_what_each_variant_costs() -> None:
    verdict = results(environment(), measurements(20)).verdict
    assert verdict.status == VALID
    assert not verdict.doubts
    assert verdict.headline.startswith("vxlan adds 9.")
    assert "µs to the median request" in verdict.headline
    assert "times HostNetwork" in verdict.headline
    assert "times the CPU per request" in verdict.headline


def test_an_effect_that_the_control_shows_too_is_no_effect() -> None:
    effects = {**EFFECTS_US, "vxlan": 0.05}
    verdict = results(environment(), measurements(12, effects=effects)).verdict
    assert "no difference" in verdict.sentences["vxlan"]


def test_too_few_rounds_have_no_sentence_that_sounds_like_a_result() -> None:
    verdict = results(environment(), measurements(3)).verdict
    assert verdict.headline == "No verdict: 3 rounds are too few for an interval."
    assert "no interval yet" in verdict.sentences["vxlan"]


def test_a_gain_is_told_as_a_gain() -> None:
    verdict = results(environment(), measurements(12, effects={**EFFECTS_US, "vxlan": -9.4})).verdict
    assert "takes 9." in verdict.headline
    assert "off the median request (" in verdict.headline
    low, _, high = verdict.headline.partition("(")[2].partition(")")[0].partition(" to ")
    assert 0 < float(low) < float(high)


def with_path(path: str) -> Environment:
    """The environment with one path found to be so."""
    base = environment()
    return replace(base, variants={**base.variants, "vxlan": replace(base.variants["vxlan"], path=path)})


@pytest.mark.parametrize(
    ("data", "circumstances", "status", "said"),
    [
        (measurements(12), with_path("path unproven"), SUSPECT, "path unproven"),
        (measurements(12), with_path("disproved"), INVALID, "did not take its path"),
        (measurements(5), environment(), INVALID, "too few"),
        (
            measurements(12),
            replace(environment(), placement={**environment().placement, "nice": {"generator": [-10, 0]}}),
            SUSPECT,
            "different priorities",
        ),
        (measurements(9), environment(), SUSPECT, "only 9 rounds"),
        ([], environment(), INVALID, "too few"),
        (
            [replace(one, loaded=replace(one.loaded, steady=False)) for one in measurements(12)],
            environment(),
            SUSPECT,
            "not settled",
        ),
        (
            [replace(one, failed_gates=("x",) if one.round < 5 else ()) for one in measurements(12)],
            environment(),
            INVALID,
            "4 of 12 rounds",
        ),
        (measurements(12, effects={**EFFECTS_US, CONTROL: 5.0}), environment(), SUSPECT, "differs from itself"),
    ],
)
def test_doubts_are_told(data: list[Measurement], circumstances: Environment, status: str, said: str) -> None:
    verdict = results(circumstances, data).verdict
    assert verdict.status == status
    assert any(said in doubt for doubt in verdict.doubts), verdict.doubts


def test_rounds_go_on_while_there_is_time_and_doubt() -> None:
    analysis = analyse(measurements(12), "host", VARIANTS)
    assert stop_reason(analysis, 12, 100, Pace(budget_s=1000)) == ""
    assert "time" in stop_reason(analysis, 12, 235, Pace(budget_s=240))


def test_rounds_stop_when_the_intervals_are_narrow_enough_at_a_look() -> None:
    first = measurements(1)[0]
    same = [replace(one, lone=first.lone, loaded=first.loaded) for one in measurements(12)]
    precise = analyse(same, "host", VARIANTS)
    assert is_precise(precise)
    assert "precise" in stop_reason(precise, 12, 10, Pace(budget_s=1000))
    assert stop_reason(analyse(same[:-5], "host", VARIANTS), 11, 10, Pace(budget_s=1000)) == ""


def test_rounds_stop_at_the_last_look_and_when_too_many_are_dropped() -> None:
    analysis = analyse(measurements(32), "host", VARIANTS)
    assert "the most" in stop_reason(analysis, 32, 10, Pace(budget_s=10_000))
    bad = [replace(one, failed_gates=("x",)) for one in measurements(13)]
    assert "dropped" in stop_reason(analyse(bad, "host", VARIANTS), 13, 10, Pace(budget_s=10_000))


def test_the_default_pace_fits_twelve_rounds_of_five_trials_into_five_minutes() -> None:
    pace = Pace()
    assert pace.budget_s < 300
    assert 12 <= pace.rounds(5) <= 32
