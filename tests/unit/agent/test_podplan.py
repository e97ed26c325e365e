"""Which containers are due, and how long one that has ended rests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from testbed.agent.podplan import due, is_initialized, restart_pause_s, will_run_again
from testbed.agent.sandbox import ContainerState
from testbed.api.objects import Object
from tests.unit.agent.specs import pod

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
RUNNING, DONE, BROKEN = None, 0, 3


def state(name: str, exit_code: int | None, attempt: int = 0) -> ContainerState:
    return ContainerState(f"{name}-{attempt}", "uid", name, "web", attempt, exit_code is None, 7, "", "", exit_code)


def states(**exit_codes: int | None) -> dict[str, ContainerState]:
    return {name: state(name, code) for name, code in exit_codes.items()}


def container(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "web", **fields}


def pod_with(*init: dict[str, Any], policy: str = "Always") -> Object:
    return pod(initContainers=list(init), containers=[container("app"), container("other")], restartPolicy=policy)


SIDECAR = container("side", restartPolicy="Always")
STAGED = pod_with(container("first"), SIDECAR, container("second"))


def names(found: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in found]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({}, ["first"]),
        ({"first": RUNNING}, []),
        ({"first": BROKEN}, ["first"]),
        ({"first": DONE}, ["side"]),
        ({"first": DONE, "side": RUNNING}, ["second"]),
        ({"first": DONE, "side": DONE, "second": RUNNING}, ["side"]),
        ({"first": DONE, "side": RUNNING, "second": DONE}, ["app", "other"]),
        ({"first": DONE, "side": RUNNING, "second": DONE, "app": RUNNING, "other": DONE}, ["other"]),
        ({"first": DONE, "side": BROKEN, "second": DONE, "app": BROKEN, "other": RUNNING}, ["side", "app"]),
    ],
)
def test_init_containers_go_one_by_one_and_sidecars_stay(there: dict[str, int | None], expected: list[str]) -> None:
    assert names(due(STAGED, states(**there), lambda _: True)) == expected


def test_a_sidecar_holds_up_what_follows_until_it_has_started() -> None:
    there = states(first=DONE, side=RUNNING)
    assert due(STAGED, there, lambda _: False) == []
    assert not is_initialized(STAGED, states(first=DONE, side=RUNNING, second=DONE), lambda _: False)


def test_a_failed_init_container_of_a_pod_that_never_restarts_is_left_alone() -> None:
    obj = pod_with(container("first"), policy="Never")
    assert due(obj, states(first=BROKEN), lambda _: True) == []


def test_a_sidecar_is_not_restarted_when_its_containers_have_done_their_work() -> None:
    obj = pod_with(SIDECAR, policy="OnFailure")
    assert due(obj, states(side=BROKEN, app=DONE, other=DONE), lambda _: True) == []
    assert names(due(obj, states(side=BROKEN, app=DONE, other=BROKEN), lambda _: True)) == ["side", "other"]


def test_an_init_container_that_has_succeeded_never_runs_again() -> None:
    assert not will_run_again(STAGED, container("first"), state("first", DONE))
    assert will_run_again(STAGED, container("app"), state("app", DONE))


def lives(*times_s: tuple[float, float]) -> list[ContainerState]:
    """Attempts that lived from one second to another."""
    return [
        ContainerState(
            str(number), "uid", "main", "web", number, False, 0,
            (BEGAN + timedelta(seconds=began)).isoformat(), (BEGAN + timedelta(seconds=ended)).isoformat(), 1,
        )
        for number, (began, ended) in enumerate(times_s)
    ]  # fmt: skip


def test_restarts_follow_the_kubelet() -> None:
    times, ended = [(0.0, 1.0)], 1.0
    pauses = [restart_pause_s(lives(*times)[0], None)]
    for _ in range(8):
        began = ended + pauses[-1]
        ended = began + 1
        times.append((began, ended))
        before, last = lives(*times)[-2:]
        pauses.append(restart_pause_s(last, before))
    assert pauses == [0, 10, 20, 40, 80, 160, 300, 300, 300]


def test_ten_minutes_of_life_are_forgiven() -> None:
    attempts = lives((0, 1), (1, 2), (12, 13), (33, 34), (74, 74 + 601), (675, 676), (686, 687))
    pauses = [restart_pause_s(last, before) for before, last in pairwise(attempts)]
    assert pauses == [10, 20, 40, 0, 10, 20]


def test_an_attempt_that_was_late_for_another_reason_does_not_make_the_rest_longer_than_its_place_in_the_row() -> None:
    before, last = lives((0, 1), (500, 501))
    assert restart_pause_s(last, before) == 10
