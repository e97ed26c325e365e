"""How things look: progress while something is done, tables, JSON. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.runtime.protocol import Progress

SECONDS_BETWEEN_LINES = 3.0
_CLEAR_LINE = "\r\x1b[K"


def seconds_since_start() -> float:
    """How long this process has lived, its own start-up included: what the person before it has waited (proc(5))."""
    started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")


def print_json(document: Any) -> None:
    """A document on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def note(words: str) -> None:
    """A remark on stderr; on a terminal it takes the place of the line of progress."""
    words = f"{_CLEAR_LINE}{words}" if sys.stderr.isatty() else words
    print(words, file=sys.stderr, flush=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """What tells, while the body runs, which step it is at: one line that changes on a terminal, plain lines elsewhere.

    Nothing moves by itself: a comparison measures on the very processors that would have to draw it.
    """
    if not sys.stderr.isatty():
        yield _plain_lines()
        return
    try:
        yield _one_line()
    finally:
        print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)


def _one_line() -> Progress:
    def show(step: str) -> None:
        seconds = f"{seconds_since_start():4.1f} s  "
        room = shutil.get_terminal_size().columns - len(seconds) - 1
        text = step if len(step) <= room else f"{step[: room - 1]}…"
        print(f"{_CLEAR_LINE}\x1b[2m{seconds}\x1b[0m{text}", end="", file=sys.stderr, flush=True)

    return show


def _plain_lines() -> Progress:
    """A line per step; of those that wait for something, which change all the time, one every few seconds."""
    shown: dict[str, float] = {}

    def show(step: str) -> None:
        before, waiting, _ = step.partition("waiting")
        sort, now = before if waiting else step, time.monotonic()
        if now - shown.get(sort, -SECONDS_BETWEEN_LINES) >= SECONDS_BETWEEN_LINES:
            note(f"  {step}")
            shown[sort] = now

    return show


def heading(text: str) -> str:
    """What stands above something; bold on a terminal."""
    return _styled(text, "1", sys.stdout.isatty())


def print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of rows that have the same keys, its columns; those that are empty in every row are left out."""
    columns = [column for column in (rows[0] if rows else ()) if any(row[column] != "" for row in rows)]
    print_table(
        title, [column.upper() for column in columns], [[str(row[column]) for column in columns] for row in rows]
    )


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns under a title; the widths follow the data, not the terminal, so that it can be piped."""
    if not rows:
        return
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    is_terminal = sys.stdout.isatty()
    print(heading(title))
    print(_styled(_line(columns, widths), "2", is_terminal))
    for row in rows:
        print(_line(row, widths))
    print()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _styled(text: str, code: str, is_terminal: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if is_terminal else text
