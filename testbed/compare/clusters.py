"""The clusters of a comparison: all of them up, side by side, and gone afterwards whatever happened in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from testbed.compare.load import ClusterPlan, Comparison
from testbed.compare.placement import Placement
from testbed.compare.workloads import workloads
from testbed.errors import CommandFailed
from testbed.runtime.lifecycle import settle
from testbed.runtime.protocol import Endpoint, Progress, Runtime
from testbed.topology.plan import plan
from testbed.topology.spec import ClusterSpec


def plan_cluster(cluster: ClusterPlan, runtime: Runtime) -> ClusterSpec:
    """The spec of one cluster, called as the comparison names it; BadInput with file and line."""
    metadata = cluster.topology.metadata.model_copy(update={"name": cluster.name})
    with cluster.source.source.blamed():
        return plan(cluster.topology.model_copy(update={"metadata": metadata}), runtime=runtime.name)


@asynccontextmanager
async def clusters_up(
    comparison: Comparison,
    specs: Mapping[str, ClusterSpec],
    placement: Placement,
    runtime: Runtime,
    progress: Progress,
) -> AsyncIterator[dict[str, Endpoint]]:
    """All clusters with the comparison's pods, by name. What an earlier run left of them is removed first."""
    left = set(specs) & set(await asyncio.to_thread(runtime.clusters))
    await _delete(left, runtime, progress)
    try:
        await _create(specs.values(), runtime, progress)
        endpoints = await asyncio.gather(
            *(
                settle(
                    specs[cluster.name],
                    [*cluster.manifests, *workloads(comparison, cluster, placement)],
                    runtime,
                    _named(progress, cluster.name),
                )
                for cluster in comparison.clusters
            )
        )
        yield {cluster.name: endpoint for cluster, endpoint in zip(comparison.clusters, endpoints, strict=True)}
    finally:
        await _delete(specs, runtime, progress)


async def _create(specs: Iterable[ClusterSpec], runtime: Runtime, progress: Progress) -> None:
    """Make the clusters side by side. A thread cannot be cancelled: whoever interrupts this waits for it to end."""
    making = asyncio.gather(
        *(asyncio.to_thread(runtime.create, spec, _named(progress, spec.name)) for spec in specs),
        return_exceptions=True,
    )
    try:
        outcomes = await asyncio.shield(making)
    except asyncio.CancelledError:
        await making
        raise
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


async def _delete(names: Iterable[str], runtime: Runtime, progress: Progress) -> None:
    removals = await asyncio.gather(
        *(asyncio.to_thread(runtime.delete, name, _named(progress, name)) for name in names)
    )
    if leftovers := [line for removal in removals for line in removal.leftovers]:
        raise CommandFailed(f"something is left of the clusters: {'; '.join(leftovers)}")


def _named(progress: Progress, cluster: str) -> Progress:
    return lambda step: progress(f"{cluster}: {step}")
