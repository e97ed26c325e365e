"""The page: what it says, and that it needs nothing else."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from testbed.compare.measurement import append, begin
from testbed.compare.results import Results, read_results, results
from testbed.compare.schedule import CONTROL
from testbed.compare.statistics import Estimate
from testbed.report import numbers, terminal
from testbed.report.document import document
from testbed.report.html import render
from testbed.report.view import NOISE, view
from testbed.report.write import write_report
from tests.unit.compare.synthetic import environment, measurements


@pytest.fixture(scope="module")
def measured() -> Results:
    """Twelve rounds with known effects."""
    return results(environment(), measurements(12))


def test_the_page_opens_with_the_answer(measured: Results) -> None:
    page = view(measured)
    assert page.headline == measured.verdict.headline
    shown = page.answer.figure["data"][0]
    assert shown["y"] == ["vxlan", "clusterip", "host-gw"]
    assert shown["x"][0] == pytest.approx(9.4, abs=1.5)
    band = page.answer.figure["layout"]["shapes"][0]
    assert band["x0"] <= 0 <= band["x1"]


def test_every_variant_has_a_row_and_so_has_the_control(measured: Results) -> None:
    rows = {row.name: row for row in view(measured).rows}
    assert list(rows) == ["host", "vxlan", "clusterip", "host-gw", CONTROL]
    assert rows["host"].cells["p50"].difference == ""
    assert rows["vxlan"].cells["p50"].noise == ""
    assert rows[CONTROL].cells["p50"].noise == NOISE


class Links(HTMLParser):
    """Everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]
        self.found += [tag] if tag in ("link", "iframe") else []


def test_the_file_fetches_nothing(measured: Results) -> None:
    text = render(view(measured))
    links = Links()
    links.feed(text)
    assert links.found == []
    assert "$" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


def test_the_figures_of_the_page_are_json_with_colours_by_name(measured: Results) -> None:
    text = render(view(measured))
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)
    assert found
    figures = json.loads(found[1])
    assert set(figures) == {"answer", "percentiles-lone", "percentiles-loaded", "cpu", "rounds", "series"}
    assert figures["percentiles-lone"]["data"][0]["line"]["color"] == "var:ink"
    for key in figures:
        assert f'id="chart-{key}"' in text


def test_names_from_a_file_cannot_break_the_page() -> None:
    hostile = replace(environment(), name="</script><b>", command="<i>")
    text = render(view(results(hostile, measurements(7))))
    assert "</script><b>" not in text
    assert "<i>" not in text.replace("<i>", "<i>", 0).split("<script>")[0]


def test_a_page_can_be_drawn_of_whatever_was_measured() -> None:
    for data in ([], measurements(1)[:3], measurements(2), measurements(7)):
        page = view(results(environment(), data))
        assert page.headline
        assert render(page)


def test_the_paths_are_drawn_once_for_each_cluster(measured: Results) -> None:
    drawings = view(measured).drawings
    assert len(drawings) == 2
    (first, vxlan), (_, host_gw) = drawings
    assert first.startswith("host, vxlan, clusterip")
    assert vxlan.count("<polyline") == 3
    assert "flannel.1" in vxlan
    assert "flannel.1" not in host_gw


def test_a_report_is_drawn_again_from_the_data_alone(tmp_path: Path, measured: Results) -> None:
    environment().write(tmp_path)
    file = begin(tmp_path)
    for one in measured.measurements:
        append(file, one)
    first = write_report(measured, tmp_path).read_text()
    assert write_report(read_results(tmp_path), tmp_path).read_text() == first


def test_the_terminal_shows_value_difference_ratio_and_noise(measured: Results) -> None:
    console = Console(width=140, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115 - closed with the test
    console.print(terminal.render(view(measured)))
    text = console.export_text()
    console.file.close()
    assert measured.verdict.headline in text
    assert re.search(r"vxlan\s+\d", text)
    assert NOISE in text
    assert "clusterip adds" in text


def test_the_document_is_json_and_holds_every_cell(measured: Results) -> None:
    doc = json.loads(json.dumps(document(measured), allow_nan=False))
    assert doc["variants"]["vxlan"]["p50"]["difference"]["centre"] == pytest.approx(9.4, abs=1.5)
    assert doc["status"] == "VALID"
    few = json.loads(json.dumps(document(results(environment(), measurements(2))), allow_nan=False))
    assert few["variants"]["vxlan"]["p50"]["difference"]["low"] is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.4231, "0.42"),
        (9.44, "9.44"),
        (118.3, "118"),
        (84_123.0, "84,100"),
        (-2.5, f"{numbers.MINUS}2.50"),
    ],
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert numbers.figure(value) == text


def test_a_difference_has_as_many_digits_as_its_interval_allows() -> None:
    assert numbers.centre(Estimate(9.4444, 9.1, 9.8)) == "+9.4"
    assert numbers.interval(Estimate(9.4444, 9.1, 9.8)) == "9.1 to 9.8"
    assert numbers.centre(Estimate(9.4444, 9.43, 9.46)) == "+9.44"
    assert numbers.centre(Estimate(-1234.5, -1300, -1200)) == f"{numbers.MINUS}1,230"
    assert numbers.interval(Estimate(1, float("-inf"), float("inf"))) == "too few rounds"
