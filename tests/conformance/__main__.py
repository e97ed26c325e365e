"""`python -m tests.conformance [--runtime …] [--backend …] [--proxy …] [ROW …]`: judge rows, print a table.

Without options, every row in every runtime and mode to which it belongs; with them, only there. The results are also
written to build/conformance.json. Exit code 1 if a row failed. KUBECONFIG names a foreign cluster to judge instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.conformance.rows import DEFAULT_BACKEND, DEFAULT_PROXY, ROWS, Row
from tests.conformance.runner import Result
from tests.conformance.subjects import Setting, cluster, judge, settings
from tests.conformance.table import table

OUTPUT = Path(__file__).resolve().parents[2] / "build/conformance.json"


def main(argv: list[str]) -> int:
    """Judge what is asked for."""
    asked = parser().parse_args(argv)
    results = [result for setting in chosen(asked) for result in judge_on(setting, rows_for(setting, asked.rows))]
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    say(f"\n{table(results)}\n")
    counts = {word: sum(result.result == word for result in results) for word in ("pass", "fail", "gap", "skip")}
    say(f"{', '.join(f'{count} {word}' for word, count in counts.items())}: {OUTPUT}")
    return 1 if counts["fail"] else 0


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(prog="python -m tests.conformance")
    for option in ("--runtime", "--backend", "--proxy"):
        made.add_argument(option, default="")
    made.add_argument("rows", nargs="*", metavar="ROW")
    return made


def chosen(asked: argparse.Namespace) -> list[Setting]:
    """The settings that agree with the options; one made of them if there is none."""
    wanted = {key: vars(asked)[key] for key in ("runtime", "backend", "proxy") if vars(asked)[key]}
    found = [setting for setting in settings() if all(vars(setting)[key] == value for key, value in wanted.items())]
    return found or [Setting(**{"runtime": "netns", "backend": DEFAULT_BACKEND, "proxy": DEFAULT_PROXY} | wanted)]


def rows_for(setting: Setting, ids: list[str]) -> list[Row]:
    """The rows that are named, or all that belong to the setting."""
    return [row for row in ROWS if (row.id in ids if ids else row.belongs_to(setting.mode))]


def judge_on(setting: Setting, rows: list[Row]) -> list[Result]:
    """The rows, on one cluster, which is made for them; a line for each."""
    if reason := setting.why_not():
        results = [Result(row.id, setting.runtime, setting.mode, "skip", reason, 0.0) for row in rows]
    else:
        with tempfile.TemporaryDirectory() as directory, cluster(setting, Path(directory)) as own:
            results = judge(setting, own, rows)
    for result in results:
        say(f"{result.id}  {setting!s:22} {result.result}  {result.seconds:6.2f} s  {result.reason}")
    return results


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
