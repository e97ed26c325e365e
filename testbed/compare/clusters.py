"""The clusters of a comparison: all of them up, side by side, and gone afterwards whatever happened in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from testbed.compare.load import ClusterPlan, Comparison
from testbed.compare.placement import Placement
from testbed.compare.workloads import workloads
from testbed.errors import CommandFailed
from testbed.runtime import capabilities
from testbed.runtime.dns import decided
from testbed.runtime.lifecycle import settle
from testbed.runtime.protocol import Endpoint, Progress, Runtime
from testbed.topology.manifests import Manifest
from testbed.topology.plan import plan
from testbed.topology.spec import ClusterSpec

log = logging.getLogger(__name__)


class LeftBehind(CommandFailed):
    """All was measured and is on disk; that the clusters are gone could not be proven."""


def plan_cluster(cluster: ClusterPlan, runtime: Runtime) -> ClusterSpec:
    """The spec of one cluster, called as the comparison names it; BadInput with file and line, and MachineLacks where
    a node's proxy mode cannot be run."""
    metadata = cluster.topology.metadata.model_copy(update={"name": cluster.name})
    with cluster.source.source.blamed():
        spec = plan(cluster.topology.model_copy(update={"metadata": metadata}), runtime=runtime.name)
    spec, about_dns = decided(spec)
    if about_dns:
        log.warning("%s", about_dns)
    capabilities.require_proxies(spec, capabilities.known(capabilities.needs(spec.nodes)))
    return spec


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
        manifests = {
            cluster.name: [*cluster.manifests, *workloads(comparison, cluster, placement)]
            for cluster in comparison.clusters
        }
        yield await _settle(specs, manifests, runtime, progress)
    except BaseException:
        for line in await _delete(specs, runtime, progress):
            log.warning("left behind: %s", line)  # told beside the error that brought us here, not instead of it
        raise
    if leftovers := await _delete(specs, runtime, progress):
        told = "; ".join(leftovers)
        raise LeftBehind(f"all is measured, but something of the clusters is left behind: {told}")


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


async def _settle(
    specs: Mapping[str, ClusterSpec],
    manifests: Mapping[str, Sequence[Manifest]],
    runtime: Runtime,
    progress: Progress,
) -> dict[str, Endpoint]:
    """Wait until every cluster works; the first that fails ends the waiting for the others."""
    waiting = {
        name: asyncio.create_task(settle(spec, manifests[name], runtime, _named(progress, name)))
        for name, spec in specs.items()
    }
    try:
        await asyncio.gather(*waiting.values())
    finally:
        for task in waiting.values():
            task.cancel()
        await asyncio.gather(*waiting.values(), return_exceptions=True)
    return {name: task.result() for name, task in waiting.items()}


async def _delete(names: Iterable[str], runtime: Runtime, progress: Progress) -> list[str]:
    """What is left of them."""
    removals = await asyncio.gather(
        *(asyncio.to_thread(runtime.delete, name, _named(progress, name)) for name in names)
    )
    return [line for removal in removals for line in removal.leftovers]


def _named(progress: Progress, cluster: str) -> Progress:
    return lambda step: progress(f"{cluster}: {step}")
