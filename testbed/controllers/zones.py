"""Topology aware routing: every zone is meant to have as many endpoints as its CPUs can ask for (KEP-2433). Pure.

A Service asks for it by the annotation `service.kubernetes.io/topology-mode: Auto`. Its endpoints are meant for their
own zone at first; zones that have too many lend some to those that have too few. Who may not get its share, by a fifth,
makes all hints go: then everybody talks to everybody.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from testbed.api.objects import Object, is_ready, labels, metadata, status
from testbed.api.wellknown import ROLE_LABEL, ZONE_LABEL

MODES = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")
"""The annotation; the first is its former name, and counts where both are given."""
OVERLOAD = 0.2
"""By so much may the endpoints of a zone have more to do than the average."""
NO_SHARES = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
ONE_ZONE = "Nodes only ready in one zone"
NO_ZONE = "One or more endpoints do not have a zone specified"
TOO_FEW = "Insufficient number of endpoints"
OVERLOADED = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"


@dataclass(frozen=True)
class Share:
    """How many endpoints a zone is meant to have."""

    least: int
    most: int
    desired: float


def wants_zones(service: Object) -> bool:
    """Whether the Service asks for topology aware routing."""
    notes = metadata(service).get("annotations") or {}
    mode = next((notes[name] for name in MODES if name in notes), "")
    return mode in {"Auto", "auto"}


def cpus_by_zone(nodes: Iterable[Object]) -> dict[str, float]:
    """The CPUs of the workers that are Ready; empty where not every one of them tells its zone and CPUs."""
    found: dict[str, float] = {}
    for zone, cpus in filter(None, map(place_of, nodes)):
        if not zone or not cpus:
            return {}
        found[zone] = found.get(zone, 0) + cpus
    return found


def place_of(node: Object) -> tuple[str, float] | None:
    """Zone and CPUs, as far as the node tells them; None for one that does not count."""
    if not is_ready(node) or labels(node).get(ROLE_LABEL) == "external":
        return None
    return labels(node).get(ZONE_LABEL, ""), _cpus(node)


def problem_of(endpoints: Mapping[str, str], cpus: Mapping[str, float]) -> str:
    """Why hints would do harm, or an empty string. `endpoints` are those that are ready, each with its own zone."""
    counts = f"({len(endpoints)} endpoints, {len(cpus)} zones)"
    if not cpus:
        return NO_SHARES
    if len(cpus) < 2:
        return ONE_ZONE
    if len(cpus) > len(endpoints):
        return f"{TOO_FEW} {counts}"
    if sum(share.least for share in _shares(len(endpoints), cpus).values()) > len(endpoints):
        return f"{OVERLOADED} {counts}"
    return "" if all(endpoints.values()) else NO_ZONE


def zones_for(endpoints: Mapping[str, str], held: Mapping[str, str], cpus: Mapping[str, float]) -> dict[str, str]:
    """For which zone each endpoint is meant, where there is no problem. `held` is for which each is meant now: that
    stays for as long as no zone has too few or too many."""
    shares = _shares(len(endpoints), cpus)
    kept = {which: held[which] if held.get(which) in shares else zone for which, zone in endpoints.items()}
    if _fits(kept, shares):
        return kept
    meant = dict(endpoints)
    for giver, taker in _moves(Counter(meant.values()), shares):
        lent = next(which for which, zone in sorted(meant.items()) if zone == giver and endpoints[which] == giver)
        meant[lent] = taker
    return meant


def _shares(count: int, cpus: Mapping[str, float]) -> dict[str, Share]:
    exact = {zone: count * mine / sum(cpus.values()) for zone, mine in cpus.items()}
    least = {zone: math.ceil(wanted / (1 + OVERLOAD)) for zone, wanted in exact.items()}
    spare = count - sum(least.values())
    return {zone: Share(least[zone], least[zone] + spare, max(exact[zone], least[zone])) for zone in cpus}


def _fits(meant: Mapping[str, str], shares: Mapping[str, Share]) -> bool:
    counts = Counter(meant.values())
    has_share = all(share.least <= counts[zone] <= share.most for zone, share in shares.items())
    return has_share and counts.keys() <= shares.keys()


def _moves(meant: Mapping[str, int], shares: Mapping[str, Share]) -> Iterator[tuple[str, str]]:
    """Giver and taker, one endpoint at a time, until nobody has half an endpoint too many or too few, nor less than the
    least."""
    counts = {zone: meant.get(zone, 0) for zone in sorted({*meant, *shares})}
    none = Share(0, 0, 0)

    def surplus(zone: str) -> float:
        return counts[zone] - shares.get(zone, none).desired

    def is_short(zone: str) -> bool:
        return counts[zone] < shares.get(zone, none).least

    while True:
        givers = [zone for zone, count in counts.items() if count > shares.get(zone, none).least]
        giver = max(givers, key=surplus, default="")
        taker = min(counts, key=lambda zone: (not is_short(zone), surplus(zone)))
        if not giver or giver == taker:
            return
        given, taken = surplus(giver), -surplus(taker)
        if not is_short(taker) and (min(given, taken) < 0.5 or max(given, taken) < 1):
            return
        counts[giver] -= 1
        counts[taker] += 1
        yield giver, taker


def _cpus(node: Object) -> float:
    """0 where they cannot be read: anybody may write a Node's status."""
    text = str((status(node).get("allocatable") or {}).get("cpu") or "0")
    try:
        return float(text[:-1]) / 1000 if text.endswith("m") else float(text)
    except ValueError:
        return 0
