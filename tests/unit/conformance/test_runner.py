"""Rows are judged without a cluster: the API is a fake, and checks say what they like."""

from __future__ import annotations

from typing import cast

from testbed.client.fake import FakeClient
from testbed.client.http import HttpClient
from tests.conformance.bed import Bed, NotApplicable, Subject
from tests.conformance.rows import ROWS, Row
from tests.conformance.runner import run_rows


async def holds(bed: Bed) -> None:
    assert bed.namespace.startswith("row-")


async def fails(bed: Bed) -> None:
    raise AssertionError("the packet was lost")


async def cannot_be_judged(bed: Bed) -> None:
    raise NotApplicable("there is one node")


async def test_each_row_gets_a_result_and_a_reason() -> None:
    subject = Subject(cast(HttpClient, FakeClient()), "netns", "vxlan+nftables", None)
    rows = [Row("ROW-1", "", holds), Row("ROW-2", "", fails, disturbing=True), Row("ROW-3", "", cannot_be_judged)]
    results = {result.id: (result.result, result.reason) for result in await run_rows(subject, rows)}
    assert results == {
        "ROW-1": ("pass", ""),
        "ROW-2": ("fail", "the packet was lost"),
        "ROW-3": ("skip", "there is one node"),
    }


def test_every_row_that_was_asked_for_is_there() -> None:
    asked = {f"NET-{n:02}" for n in (1, 2, 3, 4, 5, 6, 8, 9, 10, 11)} | {f"SVC-{n:02}" for n in (1, 2, 3, 4, 5)}
    asked |= {f"SVC-{n}" for n in (12, 13, 14, 37, 38)} | {"EPS-01", "EPS-05"}
    assert {row.id for row in ROWS} == asked


def test_a_row_may_apply_to_one_backend_only() -> None:
    (row,) = (row for row in ROWS if row.id == "NET-11")
    assert row.applies_to("vxlan+nftables")
    assert not row.applies_to("host-gw+nftables")
