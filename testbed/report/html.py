"""A page as one HTML file that needs nothing else: styles, scripts and Plotly are inside."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from importlib import resources
from string import Template

from plotly.offline import get_plotlyjs

from testbed.compare.analysis import METRICS
from testbed.report import numbers
from testbed.report.view import SHOWN, CellView, Chart, Page, Row


def render(page: Page) -> str:
    """The whole file."""
    return Template(_resource("page.html")).substitute(
        title=escape(page.title),
        status=escape(page.status),
        status_class=page.status.lower(),
        headline=escape(page.headline),
        lede=escape(page.lede),
        doubts=_doubts(page.doubts),
        answer=_chart(page.answer),
        table=_table(page.rows),
        drawings="".join(
            f"<figure>{svg}<figcaption>{escape(title)}</figcaption></figure>" for title, svg in page.drawings
        ),
        paths=_paths(page.rows),
        charts="".join(f"<section>{_chart(chart)}</section>" for chart in page.charts),
        facts=_definitions(page.facts),
        dropped=_list(page.dropped, "No round was dropped."),
        machine=_definitions(page.machine),
        command=escape(page.command),
        css=_resource("page.css"),
        plotly=get_plotlyjs(),
        figures=_script_json({chart.key: chart.figure for chart in (page.answer, *page.charts)}),
        js=_resource("page.js"),
    )


def _chart(chart: Chart) -> str:
    return (
        f"<h2>{escape(chart.title)}</h2>"
        f'<figure><div class="chart" id="chart-{chart.key}" role="img" aria-label="{escape(chart.alt)}" '
        f'style="min-height:{chart.figure["layout"]["height"]}px"></div>'
        f"<figcaption>{escape(chart.caption)}</figcaption></figure>"
    )


def _table(rows: Iterable[Row]) -> str:
    heads = "".join(
        f'<th scope="col" class="number">{escape(METRICS[key].title)}<small>{METRICS[key].unit}</small></th>'
        for key in SHOWN
    )
    body = "".join(_row(row) for row in rows)
    return (
        f'<table class="cells"><thead><tr><th scope="col">variant</th>{heads}</tr></thead><tbody>{body}</tbody></table>'
    )


def _row(row: Row) -> str:
    kind = "baseline" if row.is_baseline else "control" if row.is_control else "variant"
    cells = "".join(
        f'<td class="number">{_cell(row.cells[key]) if key in row.cells else numbers.NOTHING}</td>' for key in SHOWN
    )
    return f'<tr class="{kind}"><th scope="row">{escape(row.name)}<small>{escape(row.what)}</small></th>{cells}</tr>'


def _cell(cell: CellView) -> str:
    if not cell.difference:
        return f"<b>{cell.value}</b>"
    noise = '<abbr title="not told apart from the A/A control">~</abbr> ' if cell.noise else ""
    return (
        f"<b>{cell.value}</b>"
        f"<span>{noise}{cell.difference} <small>({cell.difference_interval})</small></span>"
        f"<span>{numbers.TIMES} {cell.ratio} <small>({cell.ratio_interval})</small></span>"
    )


def _paths(rows: Iterable[Row]) -> str:
    items = "".join(
        f'<li><span class="swatch" style="background:var(--{row.colour})"></span><b>{escape(row.name)}</b>:'
        f" {escape(row.what)}; "
        f'<span class="path-{row.path.split()[0]}">path {escape(row.path.removeprefix("path "))}</span>'
        f"<small>{escape(row.path_detail)}</small></li>"
        for row in rows
        if not row.is_control
    )
    return f'<ul class="paths">{items}</ul>'


def _doubts(doubts: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(doubt)}</li>" for doubt in doubts)
    return f'<ul class="doubts">{items}</ul>' if items else ""


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)


def _list(items: Iterable[str], otherwise: str) -> str:
    rows = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f"<ul>{rows}</ul>" if rows else f"<p>{otherwise}</p>"


def _script_json(value: object) -> str:
    """JSON that may stand inside a script element: nothing in it can end that element (HTML, 4.12.1.3)."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _resource(name: str) -> str:
    return resources.files("testbed.report").joinpath(name).read_text(encoding="utf-8")
