"""A short comparison from its file to its report; its figures mean nothing, all that surrounds them does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.e2e.clusters import ROOT, unique, why_not
from tests.e2e.command import cli
from tests.e2e.machine import Machine, assert_nothing_left

COMPARISON = ROOT / "loadtests/hostnetwork-vs-overlay.yaml"
CASES = [("netns", ("host", "vxlan", "clusterip", "host-gw")), ("docker", ("host", "vxlan"))]
"""On docker one cluster has to do, for the time it takes."""


@pytest.mark.parametrize(("runtime", "variants"), CASES, ids=[runtime for runtime, _ in CASES])
def test_a_comparison_measures_reports_and_leaves_nothing(
    runtime: str, variants: tuple[str, ...], tmp_path: Path
) -> None:
    if reason := why_not(runtime):
        pytest.skip(reason)
    name, before = unique(f"e-cmp-{runtime}"), Machine.seen_now()
    out = tmp_path / "report"
    args = ["--runtime", runtime, "--out", str(out), "--budget", "75", "--seed", "1", "-o", "json"]
    ran = cli("compare", _short(name, variants, tmp_path), *args, timeout_s=360)
    assert_nothing_left(name, before)
    assert ran.code in (0, 1), ran.stderr
    told = ran.json()
    assert set(variants) - {"host"} <= set(told["variants"])
    # With so few rounds the verdict may be that there are too few; that every path is what it claims has been proven.
    assert {path["status"] for path in told["paths"].values()} == {"proven"}, told["paths"]
    measurements = [json.loads(line) for line in (out / "measurements.jsonl").read_text().splitlines()]
    assert measurements
    assert json.loads((out / "environment.json").read_text())
    page = (out / "report.html").read_text()
    assert "<script src=" not in page, "the report is one file"
    assert 'href="http' not in page.partition("<body")[0], "the report loads nothing"
    again = cli("report", out, "-o", "json")
    assert again.json() == told, "the data alone give the same answer"


def _short(name: str, variants: tuple[str, ...], directory: Path) -> Path:
    doc = yaml.safe_load(COMPARISON.read_text())
    doc["metadata"]["name"] = name
    spec = doc["spec"]
    spec["topology"] = str((COMPARISON.parent / spec["topology"]).resolve())
    spec["load"]["locustfile"] = str((COMPARISON.parent / spec["load"]["locustfile"]).resolve())
    spec["variants"] = {variant: spec["variants"][variant] for variant in variants}
    file = directory / "comparison.yaml"
    file.write_text(yaml.safe_dump(doc))
    return file
