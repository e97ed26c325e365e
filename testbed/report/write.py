"""`report.html` beside the data, from the data."""

from __future__ import annotations

from pathlib import Path

from testbed.compare.results import Results
from testbed.report.html import render
from testbed.report.view import view

FILE = "report.html"


def write_report(results: Results, directory: Path) -> Path:
    """Render the page into `directory`; its path."""
    file = directory / FILE
    file.write_text(render(view(results)), encoding="utf-8")
    return file
