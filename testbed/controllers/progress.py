"""What the status of a Deployment says: counts over its ReplicaSets, and how its rollout gets on. Pure.

Progressing is True while something moves, and for progressDeadlineSeconds longer; then it is False until something
does. Once all pods are of the newest template it stays True whatever becomes of them: scaling is no rollout.
Source: Kubernetes' pkg/controller/deployment/progress.go and util/deployment_util.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from testbed.api.objects import Object, condition, metadata, name, now, parse_time, spec, status
from testbed.controllers.rollout import strategy_of

PROGRESSING, AVAILABLE = "Progressing", "Available"
DONE, MOVES, LATE = "NewReplicaSetAvailable", "ReplicaSetUpdated", "ProgressDeadlineExceeded"
CREATED, FOUND = "NewReplicaSetCreated", "FoundNewReplicaSet"
PAUSED, RESUMED = "DeploymentPaused", "DeploymentResumed"
FOR_EVER_S = (1 << 31) - 1
"""The progressDeadlineSeconds that means none."""

Condition = dict[str, str]
Counts = Mapping[str, int]


@dataclass(frozen=True)
class Rollout:
    """Where a Deployment is: the ReplicaSet of its template, None while there is none, and all of them."""

    new: Object | None
    replica_sets: Sequence[Object]
    was_created: bool = False
    """Whether `new` has just been made."""


def status_of(deployment: Object, rollout: Rollout, *, moment: datetime | None = None) -> dict[str, Any]:
    """The Deployment's status."""
    counts = counts_of(rollout)
    is_enough = counts["availableReplicas"] >= _wanted(deployment) - strategy_of(spec(deployment)).unavailable
    progressing = _progressing(deployment, rollout, counts, moment or datetime.now(UTC))
    conditions = [_available(deployment, is_enough=is_enough), *([progressing] if progressing else [])]
    return {"observedGeneration": metadata(deployment).get("generation", 0), **counts, "conditions": conditions}


def counts_of(rollout: Rollout) -> dict[str, int]:
    """Of pods: all, of the newest template, ready, available, and missing to what is asked for."""
    replicas, ready, available = (
        sum(status(rs).get(field, 0) for rs in rollout.replica_sets)
        for field in ("replicas", "readyReplicas", "availableReplicas")
    )
    return {
        "replicas": replicas,
        "updatedReplicas": status(rollout.new or {}).get("replicas", 0),
        "readyReplicas": ready,
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(spec(rs).get("replicas", 1) for rs in rollout.replica_sets) - available),
    }


def deadline_left_s(deployment: Object, moment: datetime | None = None) -> float | None:
    """How long the rollout may still stand still; None where nobody waits for it."""
    held, deadline_s = condition(deployment, PROGRESSING), _deadline_s(deployment)
    if deadline_s is None or spec(deployment).get("paused") or held.get("reason") in (None, DONE, LATE):
        return None
    until = _since(held) + timedelta(seconds=deadline_s)
    return max(0.0, (until - (moment or datetime.now(UTC))).total_seconds())


def _progressing(deployment: Object, rollout: Rollout, counts: Counts, moment: datetime) -> Condition | None:
    """The condition as it should be; None for none."""
    held = condition(deployment, PROGRESSING)
    if _deadline_s(deployment) is None:
        return None
    if spec(deployment).get("paused"):
        keeps = held.get("reason") in (LATE, PAUSED)
        return held if keeps else _condition(deployment, PROGRESSING, "Unknown", PAUSED, "Deployment is paused")
    if held.get("reason") == PAUSED:
        return _condition(deployment, PROGRESSING, "Unknown", RESUMED, "Deployment is resumed")
    if held.get("reason") == DONE and counts["replicas"] == counts["updatedReplicas"] and not rollout.was_created:
        return held
    return _verdict(deployment, rollout, counts, moment)


def _verdict(deployment: Object, rollout: Rollout, counts: Counts, moment: datetime) -> Condition | None:
    held, new = condition(deployment, PROGRESSING), name(rollout.new or {})

    def say(value: str, reason: str, message: str) -> Condition:
        return _condition(deployment, PROGRESSING, value, reason, message)

    if _is_done(deployment, counts):
        return say("True", DONE, f'ReplicaSet "{new}" has successfully progressed.')
    if rollout.was_created:
        return say("True", CREATED, f'Created new replica set "{new}"')
    if _has_moved(deployment, counts):
        return say("True", MOVES, f'ReplicaSet "{new}" is progressing.') | {"lastUpdateTime": now()}
    if not held.get("reason") or held.get("reason") == DONE:
        return say("True", FOUND, f'Found new replica set "{new}"')
    deadline_s = _deadline_s(deployment)
    if deadline_s is not None and _since(held) + timedelta(seconds=deadline_s) < moment:
        return say("False", LATE, f'ReplicaSet "{new}" has timed out progressing.')
    return held


def _is_done(deployment: Object, counts: Counts) -> bool:
    parts = {counts["updatedReplicas"], counts["replicas"], counts["availableReplicas"]}
    is_seen = metadata(deployment).get("generation", 0) >= status(deployment).get("observedGeneration", 0)
    return parts == {_wanted(deployment)} and is_seen


def _has_moved(deployment: Object, counts: Counts) -> bool:
    """Whether there are more new pods, fewer old ones, or more that can be used, than were last told."""
    told = {field: status(deployment).get(field, 0) for field in counts}
    old_told, old = (each["replicas"] - each["updatedReplicas"] for each in (told, counts))
    more = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return old < old_told or any(counts[field] > told[field] for field in more)


def _available(deployment: Object, *, is_enough: bool) -> Condition:
    if is_enough:
        message = "Deployment has minimum availability."
        return _condition(deployment, AVAILABLE, "True", "MinimumReplicasAvailable", message)
    message = "Deployment does not have minimum availability."
    return _condition(deployment, AVAILABLE, "False", "MinimumReplicasUnavailable", message)


def _condition(deployment: Object, kind: str, value: str, reason: str, message: str) -> Condition:
    wanted = {"type": kind, "status": value, "reason": reason, "message": message}
    held = condition(deployment, kind)
    if wanted.items() <= held.items():
        return held
    moment = now()
    since = held.get("lastTransitionTime", moment) if held.get("status") == value else moment
    return {**wanted, "lastUpdateTime": moment, "lastTransitionTime": since}


def _deadline_s(deployment: Object) -> int | None:
    deadline_s = spec(deployment).get("progressDeadlineSeconds", 600)
    return None if deadline_s is None or deadline_s >= FOR_EVER_S else int(deadline_s)


def _since(held: Condition) -> datetime:
    """When something last moved; a condition that somebody wrote without a time has only just been."""
    told = held.get("lastUpdateTime") or held.get("lastTransitionTime")
    return parse_time(told) if told else datetime.now(UTC)


def _wanted(deployment: Object) -> int:
    return int(spec(deployment).get("replicas", 1))
