"""Rows are judged without a cluster: the API is a fake, and checks say what they like."""

from __future__ import annotations

from typing import cast

import pytest

from testbed.client.fake import FakeClient
from testbed.client.http import HttpClient
from tests.conformance.bed import Bed, NotApplicable, Subject
from tests.conformance.rows import ROWS, Row
from tests.conformance.runner import Result, run_rows
from tests.conformance.table import table


async def holds(bed: Bed) -> None:
    assert bed.namespace.startswith("row-")


async def fails(bed: Bed) -> None:
    raise AssertionError("the packet was lost")


async def cannot_be_judged(bed: Bed) -> None:
    raise NotApplicable("there is one node")


async def test_each_row_gets_a_result_and_a_reason() -> None:
    subject = Subject(cast(HttpClient, FakeClient()), "netns", "vxlan+nftables", None)
    rows = [Row("ROW-1", "", holds), Row("ROW-2", "", fails, alone=True), Row("ROW-3", "", cannot_be_judged)]
    results = {result.id: (result.result, result.reason) for result in await run_rows(subject, rows)}
    assert results == {
        "ROW-1": ("pass", ""),
        "ROW-2": ("fail", "the packet was lost"),
        "ROW-3": ("skip", "there is one node"),
    }


def test_every_row_that_was_asked_for_is_there() -> None:
    asked = {f"NET-{number:02}" for number in range(1, 12)}
    asked |= {f"SVC-{number:02}" for number in (*range(1, 43), 44)}
    asked |= {f"CT-{number:02}" for number in range(1, 8)} | {f"EPS-{number:02}" for number in range(1, 7)}
    asked |= {f"DNS-{number:02}" for number in range(1, 17)}
    assert {row.id for row in ROWS} == asked
    assert len({row.id for row in ROWS}) == len(ROWS)


async def test_what_a_mode_does_not_promise_is_a_gap_with_its_reason() -> None:
    subject = Subject(cast(HttpClient, FakeClient()), "netns", "vxlan+iptables", None)
    (result,) = await run_rows(subject, [Row("ROW-1", "", fails, gaps={"iptables": "it knows no such thing"})])
    assert (result.result, result.reason) == ("gap", "it knows no such thing")


@pytest.mark.parametrize(
    ("row", "mode", "belongs"),
    [
        ("NET-01", "vxlan+nftables", True),
        ("NET-01", "host-gw+nftables", True),
        ("NET-01", "vxlan+iptables", False),
        ("SVC-04", "vxlan+iptables", True),
        ("SVC-04", "host-gw+nftables", False),
        ("SVC-04", "", True),
    ],
)
def test_backends_are_shown_by_rows_of_the_pod_network_and_proxies_by_the_others(
    row: str, mode: str, belongs: bool
) -> None:
    assert next(each for each in ROWS if each.id == row).belongs_to(mode) is belongs


def test_the_table_names_the_reason_of_every_gap() -> None:
    results = [
        Result("SVC-1", "netns", "vxlan+nftables", "pass", "p99 12 ms", 1.0),
        Result("SVC-1", "netns", "vxlan+ipvs", "skip", "no IPVS here", 0.0),
        Result("SVC-2", "netns", "vxlan+ipvs", "gap", "it knows no such thing", 0.0),
    ]
    assert table(results).splitlines() == [
        "       netns     netns",
        "       vxlan     vxlan",
        "       nftables  ipvs",
        "SVC-1  ok        skip 1",
        "SVC-2            - 2",
        "",
        "1 no IPVS here",
        "2 it knows no such thing",
        "SVC-1 netns vxlan+nftables: p99 12 ms",
    ]
