"""From old pods to new ones: how many each ReplicaSet of a Deployment should have next. Pure.

RollingUpdate never has more than `replicas + surge` pods asked for, nor fewer than `replicas - unavailable` available
because of what it does. Recreate lets the old pods go before it makes the first new one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Scale:
    """A ReplicaSet: the pods it is asked for, and of those the available ones."""

    name: str
    replicas: int
    available: int


@dataclass(frozen=True)
class Strategy:
    """spec.strategy, its percentages resolved."""

    surge: int = 0
    unavailable: int = 0
    recreate: bool = False


def strategy_of(spec: Mapping[str, Any]) -> Strategy:
    """The strategy of a Deployment's spec: surge is rounded up, unavailable down, and one of them is at least 1."""
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return Strategy(recreate=True)
    rolling, replicas = strategy.get("rollingUpdate") or {}, spec.get("replicas", 1)
    surge = math.ceil(_share(rolling.get("maxSurge", "25%"), replicas))
    unavailable = math.floor(_share(rolling.get("maxUnavailable", "25%"), replicas))
    return Strategy(surge, unavailable if surge or unavailable else 1)


def next_scales(
    replicas: int, strategy: Strategy, new: Scale, old: Sequence[Scale], *, old_pods_remain: bool
) -> dict[str, int]:
    """The replicas of every ReplicaSet for now; ask again whenever a pod has become available or has gone."""
    if strategy.recreate:
        return {scale.name: 0 for scale in old} | {new.name: new.replicas if old_pods_remain else replicas}
    grown = replace(new, replicas=_grow(replicas, strategy, new, old))
    return {grown.name: grown.replicas} | _shrink(replicas, strategy, grown, old)


def paused_scales(replicas: int, strategy: Strategy, there: Sequence[Scale]) -> dict[str, int]:
    """The replicas of every ReplicaSet, the newest one last, of a Deployment that is scaled but not rolled.

    Where only one has pods, it gets all; where several have, what a rollout may have is shared as it is shared now.
    """
    active = [scale for scale in there if scale.replicas] or list(there[-1:])
    kept = {scale.name: scale.replicas for scale in there}
    if len(active) < 2:
        return kept | {scale.name: replicas for scale in active}
    room, total = replicas + strategy.surge if replicas else 0, sum(scale.replicas for scale in active)
    shares = {scale.name: scale.replicas * room // total for scale in active}
    largest = sorted(active, key=lambda scale: (scale.replicas, active.index(scale)), reverse=True)
    for scale in largest[: room - sum(shares.values())]:
        shares[scale.name] += 1
    return kept | shares


def _grow(replicas: int, strategy: Strategy, new: Scale, old: Sequence[Scale]) -> int:
    room = replicas + strategy.surge - sum(scale.replicas for scale in old)
    return min(replicas, max(new.replicas, room))


def _shrink(replicas: int, strategy: Strategy, new: Scale, old: Sequence[Scale]) -> dict[str, int]:
    least = replicas - strategy.unavailable
    asked = new.replicas + sum(scale.replicas for scale in old)
    budget = asked - least - max(0, new.replicas - new.available)
    wanted: dict[str, int] = {}
    for scale in old:  # first what is of no use to anybody
        idle = scale.replicas - min(scale.available, scale.replicas)
        freed = max(0, min(idle, budget))
        wanted[scale.name], budget = scale.replicas - freed, budget - freed
    available = min(new.available, new.replicas) + sum(min(scale.available, scale.replicas) for scale in old)
    budget = min(budget, available - least)
    for scale in old:
        freed = max(0, min(wanted[scale.name], budget))
        wanted[scale.name], budget = wanted[scale.name] - freed, budget - freed
    return wanted


def _share(value: int | str, of: int) -> float:
    return int(value.removesuffix("%")) * of / 100 if isinstance(value, str) else value
