"""The rows as tests. The first test of a setting brings its cluster up and judges all the rows that were selected."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.conformance.rows import DEFAULT_PROXY, ROWS, Row
from tests.conformance.runner import Result
from tests.conformance.subjects import Setting, cluster, judge, settings
from tests.tiers import FULL

TELLING = frozenset(
    [
        *("SVC-04", "SVC-05", "SVC-06", "SVC-07", "SVC-12", "SVC-14", "SVC-16", "SVC-18", "SVC-19", "SVC-22", "SVC-26"),
        *("SVC-32", "SVC-37", "CT-01", "CT-03", "CT-06"),
    ]
)
"""The rows in which modes differ most: what the fast core shows of the others than the default one, on one runtime."""


def is_looked_at(setting: Setting, row: Row) -> bool:
    """Whether this run shows that row there. IPVS is for tests/vm, and what a mode does not promise is not asked."""
    if setting.proxy == "ipvs" or not row.belongs_to(setting.mode) or row.gap(setting.mode):
        return False
    return FULL or setting.proxy in ("", DEFAULT_PROXY) or (setting.runtime == "netns" and row.id in TELLING)


CASES = [
    pytest.param(setting, row, id=f"{setting}-{row.id}")
    for setting in settings()
    for row in ROWS
    if is_looked_at(setting, row)
]


@pytest.fixture(scope="session")
def judged(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Setting], dict[str, Result]]:
    """The selected rows of a setting, judged on a cluster of their own when one of them is first asked for."""
    calls = [
        item.callspec.params
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    ]
    selected = {(params["setting"], params["row"]) for params in calls if "setting" in params}

    @cache
    def judge_all(setting: Setting) -> dict[str, Result]:
        rows = [row for row in ROWS if (setting, row) in selected]
        with cluster(setting, tmp_path_factory.mktemp("conformance")) as own:
            return {result.id: result for result in judge(setting, own, rows)}

    return judge_all


@pytest.mark.parametrize(("setting", "row"), CASES)
def test_what_kubernetes_promises_holds(
    setting: Setting, row: Row, judged: Callable[[Setting], dict[str, Result]]
) -> None:
    if reason := setting.why_not():
        pytest.skip(reason)
    result = judged(setting)[row.id]
    if result.result == "skip":
        pytest.skip(result.reason)
    assert result.result == "pass", f"{row.id}, {row.what}: {result.reason}"
