"""`compare` and `report`: what one way of carrying packets costs against another, and that once more from the data."""

from __future__ import annotations

import asyncio
import secrets
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli.options import Output, OutputOption, RuntimeOption
from testbed.cli.terminal import note, print_json, progress
from testbed.errors import BadInput, CheckFailed

if TYPE_CHECKING:
    from testbed.compare.load import Comparison
    from testbed.compare.results import Results
    from testbed.compare.run import Setting
    from testbed.runtime.choose import Choice


def compare(
    file: Annotated[Path, typer.Argument(help="A comparison, such as loadtests/hostnetwork-vs-overlay.yaml.")],
    runtime: RuntimeOption = None,
    out: Annotated[
        Path | None, typer.Option(help="A new directory for report and data; by default reports/NAME-TIME.")
    ] = None,
    budget: Annotated[float, typer.Option(help="Seconds for all rounds together, at the most.", min=10)] = 280.0,
    seed: Annotated[int | None, typer.Option(help="Of the order of rounds; by default a new one.", min=0)] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Measure variants of a network against each other, and write the report.

    Brings up every cluster that it needs, interleaves the rounds over them, and removes all of it again. Exits with 1
    where the result is invalid.
    """
    from testbed.compare import run
    from testbed.compare.clusters import LeftBehind
    from testbed.compare.load import load_comparison
    from testbed.compare.results import read_results
    from testbed.compare.stopping import Pace
    from testbed.runtime.choose import choose

    comparison = load_comparison(file)
    wanted = runtime or comparison.clusters[0].topology.spec.runtime
    choice = choose(wanted, comparison.clusters[0].name)
    directory = out or Path("reports") / f"{comparison.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if directory.exists() and any(directory.iterdir()):
        raise BadInput(f"{directory} is not empty; name a new directory with --out")
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    note(f"{comparison.name}: {len(comparison.variants)} variants on {choice.runtime.name} ({choice.why})")
    again = shlex.join(["testbed", "compare", str(file), "--runtime", choice.runtime.name, "--seed", str(seed)])
    try:
        results = _measured(comparison, choice, directory, run.Setting(seed, again, Pace(budget_s=budget)))
    except LeftBehind:
        _tell(read_results(directory), directory, output)
        raise
    note("every cluster is removed, and nothing of them is left")
    _tell(results, directory, output)


def _measured(comparison: Comparison, choice: Choice, directory: Path, setting: Setting) -> Results:
    from testbed.compare.run import compare as measure

    with progress() as show:
        return asyncio.run(
            measure(comparison, runtime=choice.runtime, out_dir=directory, progress=show, setting=setting)
        )


def report(
    directory: Annotated[Path, typer.Argument(help="What `testbed compare` wrote.", metavar="DIR")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Print a comparison's result again and render its report.html anew, from the data alone."""
    from testbed.compare.results import read_results

    _tell(read_results(directory), directory, output)


def _tell(results: Results, directory: Path, output: Output) -> None:
    """The answer on stdout, the page beside the data; an invalid result is a failed check."""
    from testbed.compare.verdict import INVALID
    from testbed.report.document import document
    from testbed.report.write import write_report

    page = write_report(results, directory)
    if output is Output.JSON:
        print_json(document(results))
    else:
        _print(results)
    note(f"report: {page}")
    if results.verdict.status == INVALID:
        raise CheckFailed(f"the comparison is invalid: {'; '.join(results.verdict.doubts)}")


def _print(results: Results) -> None:
    from rich.console import Console

    from testbed.report.terminal import render
    from testbed.report.view import view

    Console(width=None if Console().is_terminal else 140).print(render(view(results)))
