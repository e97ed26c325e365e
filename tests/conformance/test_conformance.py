"""The rows as tests. The first test of a setting brings its cluster up and judges all the rows that were selected."""

from __future__ import annotations

from collections.abc import Iterator

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
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """The selected rows, judged on a cluster of this setting."""
    setting: Setting = request.param
    if reason := setting.why_not():
        pytest.skip(reason)
    parameters = (item.callspec.params for item in request.session.items if hasattr(item, "callspec"))
    wanted = {given["row"] for given in parameters if given.get("results") == setting}
    with cluster(setting, tmp_path_factory.mktemp("conformance")) as own:
        judged = judge(setting, own, [row for row in ROWS if row in wanted])
        yield {result.id: result for result in judged}


@pytest.mark.parametrize(("results", "row"), CASES, indirect=["results"])
def test_what_kubernetes_promises_holds(row: Row, results: Results) -> None:
    result = results[row.id]
    if result.result == "skip":
        pytest.skip(result.reason)
    assert result.result == "pass", f"{row.id}, {row.what}: {result.reason}"
