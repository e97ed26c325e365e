"""`doctor`, `images` and `schema`: the machine, and what the files may say."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from testbed.cli.options import Output, OutputOption
from testbed.cli.terminal import print_json, print_table, progress


class FileKind(StrEnum):
    """What a user writes."""

    TOPOLOGY = "topology"
    COMPARISON = "comparison"


def doctor(output: OutputOption = Output.TEXT) -> None:
    """Say what this machine has and lacks, with the fix. Exits with 3 where no runtime can be used."""
    from testbed.errors import MachineLacks
    from testbed.runtime.doctor import examine

    with progress() as show:
        show("looking at this machine")
        diagnosis = examine()
    if output is Output.JSON:
        checks = [vars(check) for check in diagnosis.checks]
        print_json({"runtimes": dict(diagnosis.runtimes), "checks": checks})
    else:
        rows = [
            [
                "ok" if check.is_well else "LACKS" if check.need else "no",
                check.name,
                check.found,
                check.need or "a later version",
            ]
            for check in diagnosis.checks
        ]
        print_table("This machine", ["", "WHAT", "FOUND", "NEEDED FOR"], rows)
        for check in diagnosis.checks:
            if not check.is_well and check.fix:
                print(f"{check.name}: {check.fix}")
        for runtime, why_not in diagnosis.runtimes.items():
            print(f"runtime {runtime}: {f'not usable: {why_not}' if why_not else 'usable'}")
    if all(diagnosis.runtimes.values()):
        raise MachineLacks("no runtime can be used on this machine; see above for what to mend")


def images(output: OutputOption = Output.TEXT) -> None:
    """Build the images that are missing on the Docker engine, and list all."""
    from testbed.runtime.images import build

    with progress() as show:
        built = build(show)
    if output is Output.JSON:
        print_json(built)
        return
    print_table("Images", ["NAME", "REFERENCE"], [[name, reference] for name, reference in built.items()])


def schema(kind: Annotated[FileKind, typer.Argument(help="Which kind of file.")]) -> None:
    """Print the JSON Schema of topology or comparison files, for editors."""
    from testbed.topology.schema import Topology, json_schema

    if kind is FileKind.TOPOLOGY:
        print_json(json_schema(Topology))
        return
    from testbed.compare.schema import ComparisonFile

    print_json(json_schema(ComparisonFile))
