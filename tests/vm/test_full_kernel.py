"""What this machine's kernel lacks, on Debian's: each test that is run inside is told here by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conformance.test_conformance import TELLING
from tests.tiers import FULL
from tests.vm.inner import Inner, judge_inside, run_inside
from tests.vm.machine import Machine

LIMIT_S = 3000.0


def test_mode_ipvs_in_namespaces(machine: Machine, shared: Path, subtests: pytest.Subtests) -> None:
    tell_all(run_inside(machine, shared, ["tests/kernel", "-k", "ipvs"], timeout_s=LIMIT_S), subtests)


def test_mode_ipvs_in_a_cluster(machine: Machine, shared: Path, subtests: pytest.Subtests) -> None:
    rows = [] if FULL else sorted(TELLING)
    arguments = ["--runtime", "netns", "--proxy", "ipvs", *rows]
    tell_all(judge_inside(machine, shared, arguments, timeout_s=LIMIT_S), subtests)


def tell_all(found: Sequence[Inner], subtests: pytest.Subtests) -> None:
    """The same outcomes outside, and a failure where nothing was run."""
    for test in found:
        with subtests.test(test.name):
            tell(test)
    assert any(test.result == "passed" for test in found), "nothing of it passed inside"


def tell(test: Inner) -> None:
    """The same outcome outside."""
    if test.result == "skipped":
        pytest.skip(test.reason)
    if test.result == "failed":
        pytest.fail(test.reason, pytrace=False)
