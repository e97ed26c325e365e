"""A comparison, from file to results: clusters up, paths proven, rounds measured, clusters down again."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from testbed.api.objects import now
from testbed.compare import measurement as measurements
from testbed.compare.bench import Bench, open_bench
from testbed.compare.clusters import clusters_up, plan_cluster
from testbed.compare.environment import Environment
from testbed.compare.load import Comparison
from testbed.compare.placement import Placement, choose, cores
from testbed.compare.results import Results, results
from testbed.compare.rounds import Measuring
from testbed.compare.stopping import Pace
from testbed.runtime.protocol import Progress, Runtime


@dataclass(frozen=True)
class Setting:
    """How a comparison is carried out."""

    seed: int = field(default_factory=lambda: secrets.randbelow(1_000_000))
    """Of the order of the rounds."""
    command: str = ""
    """The command line that repeats it, for the report."""
    pace: Pace = field(default_factory=Pace)


async def compare(
    comparison: Comparison, *, runtime: Runtime, out_dir: Path, progress: Progress, setting: Setting | None = None
) -> Results:
    """Measure `comparison`, and leave measurements.jsonl and environment.json in `out_dir`.

    Whatever happens, the clusters are removed; what was measured until then is on disk, line by line. Raises what
    bringing a cluster up raises, and CommandFailed or TimedOut where a generator fails,
    and LeftBehind where at the end of all something of the clusters is still there.
    """
    setting = setting or Setting()
    file = measurements.begin(out_dir)
    placement = choose(cores())
    specs = {cluster.name: plan_cluster(cluster, runtime) for cluster in comparison.clusters}
    async with AsyncExitStack() as stack:
        endpoints = await stack.enter_async_context(clusters_up(comparison, specs, placement, runtime, progress))
        progress("starting generators and checking paths")
        bench = await stack.enter_async_context(open_bench(comparison, specs, endpoints, placement))
        environment = describe(comparison, bench, placement, setting, {n: s.to_json() for n, s in specs.items()})
        environment.write(out_dir)
        stopped = "interrupted"
        try:
            stopped = await Measuring(comparison, bench, placement, setting.pace, file).run(setting.seed, progress)
        finally:
            environment = replace(environment, ended=now(), stopped=stopped)
            environment.write(out_dir)
    return results(environment, measurements.read(file))


def describe(
    comparison: Comparison,
    bench: Bench,
    placement: Placement,
    setting: Setting,
    clusters: Mapping[str, Mapping[str, Any]],
) -> Environment:
    """The circumstances, as far as they are known before the first round."""
    return Environment(
        name=comparison.name,
        baseline=comparison.baseline,
        primary=comparison.primary,
        variants=bench.variants,
        clusters=clusters,
        locustfile=comparison.locustfile.name,
        users=comparison.users,
        placement={**asdict(placement), "nice": bench.nice},
        pace=asdict(setting.pace),
        seed=setting.seed,
        command=setting.command,
        started=now(),
        machine=bench.machine,
        devices=bench.devices,
    )
