"""For which zone an endpoint is meant."""

from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from testbed.api.objects import Object
from testbed.api.wellknown import ROLE_LABEL, ZONE_LABEL
from testbed.controllers.zones import (
    NO_SHARES,
    NO_ZONE,
    ONE_ZONE,
    OVERLOAD,
    OVERLOADED,
    TOO_FEW,
    cpus_by_zone,
    problem_of,
    wants_zones,
    zones_for,
)
from tests.unit.controllers.harness import service

EVEN = {"x": 4.0, "y": 4.0, "z": 4.0}


def node(zone: str, *, cpu: str = "4", ready: bool = True, role: str = "worker") -> Object:
    return {
        "metadata": {"labels": {ROLE_LABEL: role, **({ZONE_LABEL: zone} if zone else {})}},
        "status": {
            "allocatable": {"cpu": cpu},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def spread(**counts: int) -> dict[str, str]:
    return {f"{zone}{number}": zone for zone, count in counts.items() for number in range(count)}


def test_ready_workers_count_with_their_cpus() -> None:
    nodes = [node("x"), node("x", cpu="500m"), node("y"), node("z", ready=False), node("", role="external")]
    assert cpus_by_zone(nodes) == {"x": 4.5, "y": 4.0}


@pytest.mark.parametrize("odd", [node(""), node("x", cpu="0"), node("x", cpu="many")])
def test_a_worker_that_tells_too_little_spoils_it_for_all(odd: Object) -> None:
    assert cpus_by_zone([node("x"), odd]) == {}


def test_endpoints_in_proportion_are_meant_for_their_own_zone() -> None:
    endpoints = spread(x=2, y=2, z=2)
    assert zones_for(endpoints, {}, EVEN) == endpoints


def test_a_zone_with_many_lends_to_one_with_few() -> None:
    meant = zones_for(spread(x=4, y=1, z=1), {}, EVEN)
    assert Counter(meant.values()) == {"x": 2, "y": 2, "z": 2}
    assert all(meant[which] == zone for which, zone in spread(y=1, z=1).items())


def test_a_zone_whose_nodes_are_gone_gives_all_that_it_has() -> None:
    assert Counter(zones_for(spread(x=2, gone=2), {}, {"x": 4.0, "y": 4.0}).values()) == {"x": 2, "y": 2}


def test_hints_stay_while_they_do_no_harm() -> None:
    held = zones_for(spread(x=8, y=8), {}, {"x": 1.0, "y": 1.0})
    more = spread(x=9, y=8)
    assert zones_for(more, held, {"x": 1.0, "y": 1.0}) == more
    swapped = {which: "y" if zone == "x" else "x" for which, zone in held.items()}
    assert zones_for(spread(x=8, y=8), swapped, {"x": 1.0, "y": 1.0}) == swapped


@pytest.mark.parametrize(
    ("endpoints", "cpus", "why"),
    [
        (spread(x=3), {}, NO_SHARES),
        (spread(x=3), {"x": 4.0}, ONE_ZONE),
        (spread(x=2), EVEN, f"{TOO_FEW} (2 endpoints, 3 zones)"),
        (spread(x=3), {"x": 4.0, "y": 4.0}, f"{OVERLOADED} (3 endpoints, 2 zones)"),
        ({"a": "x", "b": "", "c": "y", "d": "y"}, {"x": 4.0, "y": 4.0}, NO_ZONE),
    ],
)
def test_what_would_do_harm_is_told(endpoints: dict[str, str], cpus: dict[str, float], why: str) -> None:
    assert problem_of(endpoints, cpus) == why


ZONES = st.sampled_from(["x", "y", "z"])


@given(
    st.dictionaries(st.integers(0, 60).map(str), ZONES, max_size=60),
    st.dictionaries(st.integers(0, 60).map(str), st.sampled_from(["x", "y", "z", "gone"])),
    st.dictionaries(ZONES, st.integers(1, 64).map(float), min_size=2),
)
def test_no_zone_is_overloaded_whatever_was_before(
    endpoints: dict[str, str], held: dict[str, str], cpus: dict[str, float]
) -> None:
    assume(not problem_of(endpoints, cpus))
    meant = zones_for(endpoints, held, cpus)
    assert meant.keys() == endpoints.keys()
    counts = Counter(meant.values())
    assert counts.keys() <= cpus.keys()
    for zone, mine in cpus.items():
        fair = len(endpoints) * mine / sum(cpus.values())
        assert counts[zone] * (1 + OVERLOAD) > fair - 1e-9, "nobody has a fifth more to do than the average"
    assert zones_for(endpoints, meant, cpus) == meant, "what fits stays"


def test_the_annotation_asks_for_it() -> None:
    def annotated(**notes: str) -> Object:
        made = service()
        made["metadata"]["annotations"] = {f"service.kubernetes.io/{name}": value for name, value in notes.items()}
        return made

    assert wants_zones(annotated(**{"topology-mode": "Auto"}))
    assert wants_zones(annotated(**{"topology-aware-hints": "auto"}))
    assert not wants_zones(annotated(**{"topology-mode": "Auto", "topology-aware-hints": "Disabled"}))
    assert not wants_zones(service())
