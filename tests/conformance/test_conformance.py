"""The rows as tests. The first test of a setting brings its cluster up and judges all the rows that were selected."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.rows import ROWS, Row
from tests.conformance.runner import Result
from tests.conformance.subjects import Setting, cluster, judge, settings

Results = dict[str, Result]

CASES = [
    pytest.param(setting, row, id=f"{setting}-{row.id}")
    for setting in settings()
    for row in ROWS
    if row.applies_to(setting.mode)
]


@pytest.fixture(scope="module")
def judged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Setting], Results]:
    """The selected rows of a setting, judged on a cluster of theirs when the first of them is asked for."""
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    held: dict[Setting, Results] = {}

    def of(setting: Setting) -> Results:
        if setting not in held:
            wanted = {given["row"] for given in parameters if given.get("setting") == setting}
            with cluster(setting, tmp_path_factory.mktemp("conformance")) as own:
                held[setting] = {result.id: result for result in judge(setting, own, [r for r in ROWS if r in wanted])}
        return held[setting]

    return of


@pytest.mark.parametrize(("setting", "row"), CASES)
def test_what_kubernetes_promises_holds(setting: Setting, row: Row, judged: Callable[[Setting], Results]) -> None:
    if reason := setting.why_not():
        pytest.skip(reason)
    result = judged(setting)[row.id]
    if result.result == "skip":
        pytest.skip(result.reason)
    assert result.result == "pass", f"{row.id}, {row.what}: {result.reason}"
