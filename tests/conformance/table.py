"""The results of rows in all modes as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tests.conformance.runner import Result

_CELLS = {"pass": "ok", "fail": "FAIL", "gap": "-", "skip": "skip"}


def table(results: Sequence[Result]) -> str:
    """A line for each row, a column for each runtime and mode; numbers lead to the reasons below.

    `-` is what a mode does not promise, `skip` what could not be tried here.
    """
    columns = list(dict.fromkeys((result.runtime, result.mode) for result in results))
    found = {(result.id, result.runtime, result.mode): result for result in results}
    notes = list(dict.fromkeys(result.reason for result in results if _needs_note(result)))

    def cell(row: str, column: tuple[str, str]) -> str:
        if (result := found.get((row, *column))) is None:
            return ""
        note = f" {notes.index(result.reason) + 1}" if _needs_note(result) else ""
        return _CELLS[result.result] + note

    heads = [["", *(runtime for runtime, _ in columns)], *_mode_lines([mode for _, mode in columns])]
    body = [[row, *(cell(row, column) for column in columns)] for row in sorted({result.id for result in results})]
    told = [f"{result.id} {result.runtime} {result.mode}: {result.reason}" for result in results if _tells(result)]
    numbered = [f"{number} {reason}" for number, reason in enumerate(notes, 1)]
    return "\n".join([*_aligned([*heads, *body]), "", *numbered, *told])


def _needs_note(result: Result) -> bool:
    return result.result in ("gap", "skip", "fail")


def _tells(result: Result) -> bool:
    """Whether a row that passed has something to tell."""
    return result.result == "pass" and bool(result.reason)


def _mode_lines(modes: Sequence[str]) -> list[list[str]]:
    """`vxlan+nftables` as two lines of a head."""
    return [["", *(mode.partition("+")[0] for mode in modes)], ["", *(mode.partition("+")[2] for mode in modes)]]


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
