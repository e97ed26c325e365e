"""What is told of a rollout that moves, stands still, is paused or has nobody who waits for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testbed.api.objects import Object, condition
from testbed.controllers.progress import FOR_EVER_S, Rollout, deadline_left_s, status_of
from tests.unit.controllers.harness import deployment, replica_set

START = datetime(2026, 1, 1, tzinfo=UTC)


def rollout(updated: int, ready: int = 0, *, old: int = 0) -> Rollout:
    """So many new pods, of which so many are ready and available, beside old ones."""
    new, former = replica_set(3, "new"), replica_set(old, "old")
    new["status"] = {"replicas": updated, "readyReplicas": ready, "availableReplicas": ready}
    former["status"] = {"replicas": old, "readyReplicas": old, "availableReplicas": old}
    return Rollout(new, [new, former])


def told(reason: str, *, value: str = "True", counts: dict[str, int] | None = None, **fields: Any) -> Object:
    """A Deployment of three whose status says this since START."""
    obj = deployment(3, **fields)
    since = START.isoformat()
    held = {"type": "Progressing", "status": value, "reason": reason, "lastUpdateTime": since}
    obj["status"] = {**(counts or {}), "conditions": [held]}
    return obj


def reason_after(obj: Object, now: Rollout, seconds: float = 0) -> tuple[str, str]:
    found = condition({"status": status_of(obj, now, moment=START + timedelta(seconds=seconds))}, "Progressing")
    return found.get("status", ""), found.get("reason", "")


STILL = {"replicas": 3, "updatedReplicas": 1, "readyReplicas": 2, "availableReplicas": 2}


@pytest.mark.parametrize(
    ("now", "seconds", "expected"),
    [
        (rollout(1, old=2), 0, ("True", "ReplicaSetUpdated")),
        (rollout(1, old=2), 599, ("True", "ReplicaSetUpdated")),
        (rollout(1, old=2), 601, ("False", "ProgressDeadlineExceeded")),
        (rollout(2, old=1), 601, ("True", "ReplicaSetUpdated")),
        (rollout(1, 1, old=2), 601, ("True", "ReplicaSetUpdated")),
        (rollout(3, 3), 601, ("True", "NewReplicaSetAvailable")),
    ],
    ids=["still", "still-in-time", "too-late", "more-new", "more-ready", "done"],
)
def test_a_rollout_has_its_deadline_from_its_last_step(now: Rollout, seconds: float, expected: tuple[str, str]) -> None:
    assert reason_after(told("ReplicaSetUpdated", counts=STILL), now, seconds) == expected


def test_a_late_rollout_that_moves_again_progresses() -> None:
    late = told("ProgressDeadlineExceeded", value="False", counts=STILL)
    assert reason_after(late, rollout(1, old=2), 1000) == ("False", "ProgressDeadlineExceeded")
    assert reason_after(late, rollout(2, old=1), 1000) == ("True", "ReplicaSetUpdated")


def test_pods_of_a_finished_rollout_that_fail_are_no_rollout() -> None:
    done = told("NewReplicaSetAvailable", counts={**STILL, "updatedReplicas": 3})
    assert reason_after(done, rollout(3, 1), 1000) == ("True", "NewReplicaSetAvailable")
    assert deadline_left_s(done) is None


def test_a_pause_stops_the_clock_and_its_end_starts_it_anew() -> None:
    paused = told("ReplicaSetUpdated", counts=STILL, paused=True)
    assert reason_after(paused, rollout(1, old=2), 1000) == ("Unknown", "DeploymentPaused")
    assert deadline_left_s(paused) is None
    resumed = told("DeploymentPaused", value="Unknown", counts=STILL)
    assert reason_after(resumed, rollout(1, old=2), 1000) == ("Unknown", "DeploymentResumed")


def test_without_a_deadline_nothing_is_said_and_nobody_waits() -> None:
    patient = told("ReplicaSetUpdated", counts=STILL, progressDeadlineSeconds=FOR_EVER_S)
    assert reason_after(patient, rollout(1, old=2), 1000) == ("", "")
    assert deadline_left_s(patient) is None


def test_the_time_that_is_left_is_known() -> None:
    waiting = told("ReplicaSetUpdated", progressDeadlineSeconds=60)
    assert deadline_left_s(waiting, START + timedelta(seconds=45)) == 15
    assert deadline_left_s(waiting, START + timedelta(seconds=75)) == 0
