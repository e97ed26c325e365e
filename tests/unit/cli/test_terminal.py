from __future__ import annotations

import json

import pytest

from testbed.cli.clusters import counted
from testbed.cli.terminal import print_json, print_table, progress


def test_without_a_terminal_progress_is_a_line_per_step_and_not_one_per_change(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress() as show:
        for step in ("making namespaces", "waiting: node a", "waiting: node b", "waiting: node c", "applying"):
            show(step)
    assert capsys.readouterr().err.splitlines() == ["  making namespaces", "  waiting: node a", "  applying"]


def test_a_table_is_as_wide_as_its_data_and_has_no_trailing_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Nodes", ["NAME", "STATUS"], [["a", "Ready"], ["a-longer-name", ""]])
    assert capsys.readouterr().out.splitlines() == [
        "Nodes",
        "NAME           STATUS",
        "a              Ready",
        "a-longer-name",
        "",
    ]


def test_a_table_without_rows_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Pods", ["NAME"], [])
    assert capsys.readouterr().out == ""


def test_json_keeps_what_is_not_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"unit": "µs"})
    text = capsys.readouterr().out
    assert "µs" in text
    assert json.loads(text) == {"unit": "µs"}


@pytest.mark.parametrize(
    ("things", "told"),
    [
        ((), "nothing"),
        (("process 1", "process 2", "directory /x"), "2 processes, 1 directory"),
        (("directory /x", "directory /y", "anchor 7", "network n"), "2 directories, 1 anchor, 1 network"),
    ],
)
def test_what_was_removed_is_counted_by_sort(things: tuple[str, ...], told: str) -> None:
    assert counted(things) == told
