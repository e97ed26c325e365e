"""Runs rows against a cluster. Rows that disturb nobody run side by side, as pods mostly wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.errors import TestbedError
from tests.conformance.bed import NotApplicable, Subject, bed
from tests.conformance.rows import Row
from tests.tiers import SLOWNESS

SIDE_BY_SIDE = 4 if SLOWNESS == 1 else 1
"""An emulated machine is busy enough with one."""
LIMIT_S = 90.0 * SLOWNESS


@dataclass(frozen=True)
class Result:
    """One line of build/conformance.json."""

    id: str
    runtime: str
    mode: str
    result: str
    """pass, fail, skip, or gap: this mode does not promise it."""
    reason: str
    """Why; of a row that passed, what is worth telling."""
    seconds: float


async def run_rows(subject: Subject, rows: Sequence[Row]) -> list[Result]:
    """Judge each row on the cluster, in the order of `rows`."""
    side_by_side = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one_of_several(row: Row) -> Result:
        async with side_by_side:
            return await judge(subject, row)

    quiet = await asyncio.gather(*(one_of_several(row) for row in rows if not row.alone))
    return [*quiet, *[await judge(subject, row) for row in rows if row.alone]]


async def judge(subject: Subject, row: Row) -> Result:
    """What becomes of one row. Whatever is wrong with the cluster is a reason; a mistake of the test is raised."""
    if gap := row.gap(subject.mode):
        return Result(row.id, subject.runtime, subject.mode, "gap", gap, 0.0)
    began = time.monotonic()
    result, reason = "pass", ""
    try:
        async with asyncio.timeout(LIMIT_S), bed(subject, row.id) as its_bed:
            reason = await row.check(its_bed) or ""
    except NotApplicable as why:
        result, reason = "skip", str(why)
    except LookupError as error:  # a document of the cluster lacks what it should have
        result, reason = "fail", f"{type(error).__name__}: {error}"
    except (AssertionError, TestbedError, OSError) as error:  # a TimeoutError is an OSError
        result, reason = "fail", str(error) or f"{type(error).__name__} after {time.monotonic() - began:.0f} s"
    return Result(row.id, subject.runtime, subject.mode, result, reason, round(time.monotonic() - began, 2))
