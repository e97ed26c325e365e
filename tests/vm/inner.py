"""Tests and rows of conformance that are run inside the virtual machine, and what became of each of them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.vm.machine import BUILD, Machine

NO_TESTS_COLLECTED = 5


@dataclass(frozen=True)
class Inner:
    """One test that was run inside."""

    name: str
    """As pytest has it, without its directory: `test_ipvs.py::test_…[real]`."""
    result: str
    """passed, failed or skipped"""
    reason: str


class Broken(Exception):
    """The tests inside could not be run to their end; the message says what pytest printed."""


def run_inside(machine: Machine, shared: Path, arguments: list[str], *, timeout_s: float) -> list[Inner]:
    """Run pytest inside with these arguments, and read its report from the directory that both sides see."""
    report = shared / "report.xml"
    report.unlink(missing_ok=True)
    options = ["-p", "no:cacheprovider", "-q", f"--junitxml={report}", f"--basetemp=/run/tests-{timeout_s:.0f}"]
    done = machine.run([".venv/bin/python", "-m", "pytest", *options, *arguments], timeout_s=timeout_s)
    if done.code not in (0, 1) or not report.exists():
        raise Broken(f"pytest {' '.join(arguments)} inside the virtual machine: {done.output[-4000:]}")
    return list(parse(report.read_text(encoding="utf-8")))


def judge_inside(machine: Machine, shared: Path, arguments: list[str], *, timeout_s: float) -> list[Inner]:
    """Judge rows of conformance inside, and read what is written about them. A gap is as good as a skip."""
    results = shared / BUILD / "conformance.json"
    results.unlink(missing_ok=True)
    done = machine.run([".venv/bin/python", "-m", "tests.conformance", *arguments], timeout_s=timeout_s)
    if not results.exists():
        raise Broken(f"conformance {' '.join(arguments)} inside the virtual machine: {done.output[-4000:]}")
    words = {"pass": "passed", "fail": "failed"}
    rows = json.loads(results.read_text(encoding="utf-8"))
    return [Inner(row["id"], words.get(row["result"], "skipped"), row["reason"]) for row in rows]


def parse(junit: str) -> Iterator[Inner]:
    """The test cases of a JUnit report; one that failed in several phases is told by the first."""
    seen: set[str] = set()
    for case in ET.fromstring(junit).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name')}"
        if name not in seen:
            seen.add(name)
            yield Inner(name, *_outcome(case))


def _outcome(case: ET.Element) -> tuple[str, str]:
    for tag, result in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        if (found := case.find(tag)) is not None:
            return result, found.get("message") or (found.text or "").strip()
    return "passed", ""
