"""Endpoints into slices, with no cluster at all."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from testbed.api.objects import Object, labels, metadata, name
from testbed.api.wellknown import HEADLESS_LABEL, LAST_CHANGE_TRIGGER_TIME, MANAGED_BY_LABEL, SERVICE_NAME_LABEL
from testbed.controllers.endpoint import IPV4, Port, Ports
from testbed.controllers.slicing import MOST_ENDPOINTS, Endpoints, Writes, plan, ports_in
from tests.unit.controllers.harness import service

NOW, LATER = "2026-01-01T00:00:00.000001Z", "2026-01-01T00:00:01.000001Z"
HTTP: Ports = (Port("", "TCP", 80),)
ALTERNATIVE: Ports = (Port("", "TCP", 8080),)
WEB = {**service(), "metadata": {"name": "web", "namespace": "default", "uid": "u-web", "labels": {"team": "red"}}}


def endpoint(number: int, *, ready: bool = True) -> dict[str, Any]:
    target = {"kind": "Pod", "namespace": "default", "name": f"p{number}", "uid": f"u{number}"}
    conditions = {"ready": ready, "serving": ready, "terminating": False}
    return {"addresses": [f"10.0.{number >> 8}.{number & 255}"], "conditions": conditions, "targetRef": target}


def endpoints(*numbers: int) -> Endpoints:
    return {f"u{number}": endpoint(number) for number in numbers}


def planned(wanted: Mapping[Ports, Endpoints], held: Sequence[Object] = (), at: str = NOW) -> Writes:
    return plan(WEB, IPV4, wanted, held, at)


def applied(held: Sequence[Object], writes: Writes) -> list[Object]:
    """What the API holds after the writes."""
    slices = {name(slice_): slice_ for slice_ in held}
    for slice_ in writes.delete:
        del slices[name(slice_)]
    for slice_ in writes.create:
        assert name(slice_) not in slices
    return list((slices | {name(slice_): slice_ for slice_ in (*writes.create, *writes.update)}).values())


def content(slices: Sequence[Object]) -> dict[Ports, Endpoints]:
    """What the slices say, whichever says it; nothing may be said twice."""
    told: dict[Ports, Endpoints] = {}
    for slice_ in slices:
        for entry in slice_["endpoints"]:
            group = told.setdefault(ports_in(slice_), {})
            assert entry["targetRef"]["uid"] not in group
            group[entry["targetRef"]["uid"]] = entry
    return told


def test_a_slice_belongs_to_its_service_and_says_who_wrote_it_when_and_why() -> None:
    [made] = planned({HTTP: endpoints(1)}).create
    assert labels(made) == {
        "team": "red",
        SERVICE_NAME_LABEL: "web",
        MANAGED_BY_LABEL: "endpointslice-controller.k8s.io",
    }
    assert metadata(made)["ownerReferences"][0]["uid"] == "u-web"
    assert metadata(made)["annotations"] == {LAST_CHANGE_TRIGGER_TIME: NOW}
    assert made["ports"] == [{"name": "", "protocol": "TCP", "port": 80}]
    assert made["addressType"] == "IPv4"


def test_a_slice_whose_port_somebody_took_away_is_set_right() -> None:
    [made] = planned({HTTP: endpoints(1)}).create
    spoiled = {**made, "ports": [{"name": "", "protocol": "TCP"}]}
    [written] = planned({HTTP: endpoints(1)}, [spoiled]).update
    assert written["ports"] == made["ports"]


def test_slices_of_a_headless_service_are_labelled_so() -> None:
    headless = {**WEB, "spec": {**WEB["spec"], "clusterIP": "None"}}
    [made] = plan(headless, IPV4, {HTTP: endpoints(1)}, [], NOW).create
    assert labels(made)[HEADLESS_LABEL] == ""


def test_nothing_changed_is_nothing_written() -> None:
    held = applied([], planned({HTTP: endpoints(1, 2)}))
    assert planned({HTTP: endpoints(1, 2)}, held, LATER) == Writes()


def test_a_service_without_pods_has_one_empty_slice_that_becomes_the_first_full_one() -> None:
    held = applied([], planned({}))
    assert [slice_["endpoints"] for slice_ in held] == [[]]
    assert planned({}, held) == Writes()
    writes = planned({HTTP: endpoints(1)}, held, LATER)
    assert (len(writes.create), len(writes.update), len(writes.delete)) == (0, 1, 0)
    assert name(writes.update[0]) == name(held[0])


def test_one_slice_per_set_of_ports() -> None:
    wanted = {HTTP: endpoints(1, 2), ALTERNATIVE: endpoints(3)}
    made = planned(wanted).create
    assert {ports_in(slice_): len(slice_["endpoints"]) for slice_ in made} == {HTTP: 2, ALTERNATIVE: 1}


def test_a_hundred_and_one_endpoints_take_two_slices() -> None:
    held = applied([], planned({HTTP: endpoints(*range(100))}))
    assert len(held) == 1
    writes = planned({HTTP: endpoints(*range(101))}, held)
    assert (len(writes.create), writes.update, writes.delete) == (1, [], [])


def test_a_change_of_one_endpoint_writes_one_slice() -> None:
    held = applied([], planned({HTTP: endpoints(*range(250))}))
    changed = endpoints(*range(250)) | {"u7": endpoint(7, ready=False)}
    writes = planned({HTTP: changed}, held)
    assert (writes.create, len(writes.update), writes.delete) == ([], 1, [])


def test_a_new_endpoint_goes_where_a_slice_is_written_anyway() -> None:
    held = applied([], planned({HTTP: endpoints(*range(150))}))
    writes = planned({HTTP: endpoints(*range(1, 151))}, held)
    assert (writes.create, len(writes.update), writes.delete) == ([], 1, [])


def test_a_slice_that_is_no_longer_needed_is_deleted() -> None:
    held = applied([], planned({HTTP: endpoints(*range(150))}))
    writes = planned({HTTP: endpoints(*range(100))}, held)
    assert (writes.create, writes.update, len(writes.delete)) == ([], [], 1)


def test_changed_labels_of_the_service_reach_its_slices() -> None:
    held = applied([], planned({HTTP: endpoints(1)}))
    renamed = {**WEB, "metadata": {**WEB["metadata"], "labels": {"team": "blue"}}}
    [updated] = plan(renamed, IPV4, {HTTP: endpoints(1)}, held, LATER).update
    assert labels(updated)["team"] == "blue"


STATES = st.lists(
    st.dictionaries(
        st.sampled_from([HTTP, ALTERNATIVE]),
        st.dictionaries(st.integers(0, 350), st.booleans(), min_size=1, max_size=350),
        max_size=2,
    ),
    max_size=6,
)


@given(STATES)
def test_any_sequence_of_pods_ends_in_slices_that_say_exactly_what_is(
    states: list[dict[Ports, dict[int, bool]]],
) -> None:
    held: list[Object] = []
    for state in [*states, {HTTP: {1: True}}]:
        wanted = {
            ports: {f"u{number}": endpoint(number, ready=ready) for number, ready in group.items()}
            for ports, group in state.items()
        }
        held = applied(held, planned(wanted, held))
        assert content(held) == wanted
        assert all(len(slice_["endpoints"]) <= MOST_ENDPOINTS for slice_ in held)
        assert all(slice_["endpoints"] for slice_ in held) or len(held) == 1
        assert planned(wanted, held, LATER) == Writes()
    assert len(held) == 1


@given(st.sets(st.integers(0, 1200), min_size=1), st.sets(st.integers(0, 1200), max_size=40), st.integers(0, 300))
def test_a_change_costs_the_slices_it_touches_and_not_all(have: set[int], leaving: set[int], coming: int) -> None:
    held = applied([], planned({HTTP: endpoints(*have)}))
    left = have - leaving
    wanted = {HTTP: endpoints(*left, *range(2000, 2000 + coming))}
    touched = sum(any(f"u{n}" == e["targetRef"]["uid"] for n in leaving for e in each["endpoints"]) for each in held)
    writes = planned(wanted, held)
    assert len(writes.create) + len(writes.update) <= touched + 1 + -(-coming // MOST_ENDPOINTS)
    assert len(writes.delete) <= touched
