"""`python -m tests.conformance [ROW …]`: judge every row, print a table, write build/conformance.json.

Exit code 1 if a row failed. KUBECONFIG names a foreign cluster to judge instead of our own.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.conformance.rows import ROWS, Row
from tests.conformance.runner import Result
from tests.conformance.subjects import Setting, cluster, judge, settings

OUTPUT = Path(__file__).resolve().parents[2] / "build/conformance.json"


def main(argv: list[str]) -> int:
    """Judge the rows named, or all of them."""
    rows = [row for row in ROWS if not argv or row.id in argv]
    results = [result for setting in settings() for result in judge_on(setting, rows)]
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    counts = {word: sum(result.result == word for result in results) for word in ("pass", "fail", "skip")}
    say(f"{', '.join(f'{count} {word}' for word, count in counts.items())}: {OUTPUT}")
    return 1 if counts["fail"] else 0


def judge_on(setting: Setting, rows: list[Row]) -> list[Result]:
    """All rows that apply, on one cluster, which is made for them; a line for each."""
    rows = [row for row in rows if row.applies_to(setting.mode)]
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
