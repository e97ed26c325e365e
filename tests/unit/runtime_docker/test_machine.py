"""The machine before `up` and after `down`, compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.runtime.machine import Comparison, Machine, compare, settled

BEFORE = Machine(
    links={"lo": "", "eth0": "", "docker0": ""},
    routes=frozenset({"eth0 00000000 0100000A 00000000"}),
    tables=frozenset({"table ip nat"}),
    namespaces=frozenset(),
)


def test_an_unchanged_machine_has_nothing_left_over() -> None:
    comparison = compare(BEFORE, BEFORE)
    assert comparison.leftovers == ()
    assert comparison.checked == (
        "3 links, as before",
        "1 routes, as before",
        "1 nft tables, as before",
        "0 named network namespaces, as before",
    )


@pytest.mark.parametrize(
    ("now", "leftover"),
    [
        (replace(BEFORE, links={**BEFORE.links, "cni0": ""}), "links: cni0"),
        (replace(BEFORE, routes=BEFORE.routes | {"cni0 0 0 0"}), "routes: cni0 0 0 0"),
        (replace(BEFORE, tables=frozenset({"table ip nat", "table ip testbed"})), "nft tables: table ip testbed"),
        (replace(BEFORE, namespaces=frozenset({"testbed-a"})), "named network namespaces: testbed-a"),
    ],
    ids=["link", "route", "table", "namespace"],
)
def test_what_is_new_is_left_over(now: Machine, leftover: str) -> None:
    assert compare(BEFORE, now).leftovers == (leftover,)


def test_a_container_that_somebody_else_started_is_no_leftover() -> None:
    now = replace(
        BEFORE,
        links={**BEFORE.links, "br-0a1b2c": "", "veth1": "br-0a1b2c", "veth2": "docker0"},
        routes=BEFORE.routes | {"br-0a1b2c 000012AC 00000000 0000FFFF"},
    )
    comparison = compare(BEFORE, now)
    assert comparison.leftovers == ()
    assert comparison.checked[0] == "6 links, 3 more of others'"


@pytest.mark.parametrize(
    "now",
    [
        replace(BEFORE, tables=frozenset({"table ip nat", "table inet firewalld"})),
        replace(BEFORE, namespaces=frozenset({"somebodys"})),
    ],
    ids=["table", "namespace"],
)
def test_what_does_not_bear_our_name_is_somebody_elses(now: Machine) -> None:
    assert compare(BEFORE, now).leftovers == ()


def test_a_veth_that_hangs_in_no_bridge_is_left_over() -> None:
    assert compare(BEFORE, replace(BEFORE, links={**BEFORE.links, "veth1": ""})).leftovers == ("links: veth1",)


def test_what_has_gone_is_told() -> None:
    assert compare(BEFORE, replace(BEFORE, links={"lo": ""})).checked[0] == "1 links, some gone since"


def test_what_goes_after_a_moment_is_no_leftover() -> None:
    looks = [Comparison((), ("links: veth1",)), Comparison((), ("links: veth1",)), Comparison(("5 links",), ())]
    remaining = iter(looks)
    assert settled(lambda: next(remaining)) == looks[-1]


def test_tables_that_this_user_may_not_see_are_not_compared() -> None:
    assert not any("tables" in line for line in compare(BEFORE, replace(BEFORE, tables=None)).checked)


@pytest.mark.parametrize("machine", [BEFORE, replace(BEFORE, tables=None)])
def test_a_machine_survives_being_written_down(machine: Machine) -> None:
    assert Machine.from_json(machine.to_json()) == machine
