"""The results in a terminal: the answer, and a table of variant by metric."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from testbed.compare.analysis import METRICS
from testbed.compare.verdict import INVALID, SUSPECT, VALID
from testbed.report.numbers import TIMES
from testbed.report.view import SHOWN, CellView, Page

_STYLES = {VALID: "green", SUSPECT: "yellow", INVALID: "red"}


def render(page: Page) -> RenderableType:
    """What `testbed compare` prints at its end."""
    verdict = Text.assemble((page.status, f"bold {_STYLES[page.status]}"), "  ", (page.headline, "bold"))
    doubts = [Text(f"  {doubt}", style="yellow") for doubt in page.doubts]
    others = [Text(row.sentence) for row in page.rows if row.sentence and row.sentence != page.headline]
    note = "95 % intervals of paired rounds; ~ does not stand out from the A/A control."
    return Group(verdict, *doubts, *others, Text(), table(page), Text(note, style="dim"))


def table(page: Page) -> Table:
    """A row to a variant, three lines to a cell: value, difference, ratio."""
    made = Table(box=None, pad_edge=False, padding=(0, 3, 1, 0))
    made.add_column("variant")
    for key in SHOWN:
        made.add_column(f"{METRICS[key].title}, {METRICS[key].unit}", justify="right")
    made.add_column("path")
    for row in page.rows:
        cells = [_cell(row.cells[key]) if key in row.cells else Text("-") for key in SHOWN]
        made.add_row(Text(row.name, style="bold"), *cells, Text(row.path), style="dim" if row.is_control else "")
    return made


def _cell(cell: CellView) -> Text:
    text = Text(cell.value, style="bold")
    if cell.difference:
        noise = f"{cell.noise} " if cell.noise else ""
        text.append(f"\n{noise}{cell.difference} ({cell.difference_interval})", style="not bold")
        text.append(f"\n{TIMES}{cell.ratio} ({cell.ratio_interval})", style="not bold")
    return text
