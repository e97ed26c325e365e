import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.controllers.rollout import Scale, Strategy, next_scales, paused_scales, strategy_of


@pytest.mark.parametrize(
    ("replicas", "rolling", "expected"),
    [
        (10, {}, Strategy(surge=3, unavailable=2)),
        (1, {}, Strategy(surge=1, unavailable=0)),
        (4, {"maxSurge": 0, "maxUnavailable": 1}, Strategy(surge=0, unavailable=1)),
        (3, {"maxSurge": 0, "maxUnavailable": "10%"}, Strategy(surge=0, unavailable=1)),
    ],
)
def test_shares_are_rounded_up_for_surge_and_down_for_unavailable(
    replicas: int, rolling: dict[str, int | str], expected: Strategy
) -> None:
    assert strategy_of({"replicas": replicas, "strategy": {"rollingUpdate": rolling}}) == expected


def test_the_first_replica_set_has_all_replicas_at_once() -> None:
    assert next_scales(5, Strategy(2, 1), Scale("new", 0, 0), [], old_pods_remain=False) == {"new": 5}


def test_recreate_waits_until_the_old_pods_have_gone() -> None:
    strategy, old = Strategy(recreate=True), [Scale("old", 3, 3)]
    assert next_scales(3, strategy, Scale("new", 0, 0), old, old_pods_remain=True) == {"old": 0, "new": 0}
    assert next_scales(3, strategy, Scale("new", 0, 0), [], old_pods_remain=False) == {"new": 3}


@pytest.mark.parametrize(
    ("replicas", "there", "expected"),
    [
        (5, [("old", 0), ("new", 2)], {"old": 0, "new": 5}),
        (5, [("old", 2), ("new", 0)], {"old": 5, "new": 0}),
        (5, [("old", 0), ("new", 0)], {"old": 0, "new": 5}),
        (0, [("old", 2), ("new", 2)], {"old": 0, "new": 0}),
        (19, [("old", 8), ("new", 4)], {"old": 14, "new": 7}),
        (20, [("old", 6), ("new", 6)], {"old": 11, "new": 11}),
        (19, [("old", 6), ("new", 6)], {"old": 10, "new": 11}),
        (5, [], {}),
    ],
)
def test_what_is_paused_is_scaled_in_the_measure_in_which_it_is(
    replicas: int, there: list[tuple[str, int]], expected: dict[str, int]
) -> None:
    scales = [Scale(name, count, count) for name, count in there]
    assert paused_scales(replicas, Strategy(surge=2), scales) == expected


def test_pods_that_are_of_no_use_go_first() -> None:
    broken, sound = Scale("broken", 2, 0), Scale("sound", 3, 3)
    scales = next_scales(3, Strategy(1, 0), Scale("new", 0, 0), [sound, broken], old_pods_remain=True)
    assert scales == {"new": 0, "sound": 3, "broken": 0}


@given(st.data())
def test_a_rolling_update_keeps_its_promises_at_every_step_and_ends(data: st.DataObject) -> None:
    """Simulated: at each step the scales are applied and some of the pods asked for become available."""
    replicas = data.draw(st.integers(0, 12), "replicas")
    strategy = strategy_of(
        {
            "replicas": replicas,
            "strategy": {
                "rollingUpdate": {
                    "maxSurge": data.draw(st.integers(0, 4), "surge"),
                    "maxUnavailable": data.draw(st.integers(0, 4), "unavailable"),
                }
            },
        }
    )
    asked = {"new": 0, "old": replicas}
    available = dict(asked)
    for _ in range(4 * replicas + 4):
        new, old = (Scale(name, asked[name], available[name]) for name in ("new", "old"))
        asked = next_scales(replicas, strategy, new, [old], old_pods_remain=asked["old"] > 0)
        available = {name: min(available[name], asked[name]) for name in asked}
        assert sum(asked.values()) <= replicas + strategy.surge
        assert sum(available.values()) >= replicas - strategy.unavailable
        waiting = asked["new"] - available["new"]
        available["new"] += data.draw(st.integers(min(waiting, 1), waiting), "become available")
    assert asked == available == {"new": replicas, "old": 0}
