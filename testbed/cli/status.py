"""`status`: what is up, and how it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from testbed.cli.options import ClusterArgument, Output, OutputOption
from testbed.cli.terminal import print_json, print_rows
from testbed.errors import ApiError, TestbedError

if TYPE_CHECKING:
    from testbed.runtime.choose import Cluster
    from testbed.runtime.overview import Overview


def status(cluster: ClusterArgument = "", output: OutputOption = Output.TEXT) -> None:
    """Show a cluster: nodes, addresses, pods, services, daemons. Without a name: the only one, or all in short."""
    from testbed.runtime.choose import existing, find

    found = [find(cluster)] if cluster else list(existing())
    if not cluster and len(found) != 1:
        _print_all(found, output)
        return
    _print_one(found[0], output)


def _print_all(found: Sequence[Cluster], output: Output) -> None:
    rows = [{"cluster": one.name, "runtime": one.runtime.name, "state": _state(one)} for one in found]
    if output is Output.JSON:
        print_json({"clusters": rows})
    elif rows:
        print_rows("Clusters", rows)
    else:
        print("No cluster is up; start one with `testbed up topologies/two-nodes.yaml`.")


def _state(cluster: Cluster) -> str:
    try:
        seen = asyncio.run(_overview(cluster))
    except TestbedError as error:
        return f"does not answer: {error}"
    ready = sum(pod["status"] == "Ready" for pod in seen.pods)
    return f"{len(seen.nodes)} nodes, {ready} of {len(seen.pods)} pods Ready"


async def _overview(cluster: Cluster) -> Overview:
    from testbed.runtime.connect import client_of
    from testbed.runtime.overview import overview

    async with client_of(cluster.runtime.endpoint(cluster.name)) as client:
        return await overview(client)


def _print_one(cluster: Cluster, output: Output) -> None:
    try:
        seen = asyncio.run(_overview(cluster))
    except ApiError as error:
        sentence = f"{cluster.name} is there, on {cluster.runtime.name}, and does not answer: {error}"
        raise TestbedError(f"{sentence} `testbed up FILE` repairs it, `testbed down` removes it.") from None
    url = cluster.runtime.endpoint(cluster.name).url
    if output is Output.JSON:
        print_json({"cluster": cluster.name, "runtime": cluster.runtime.name, "url": url, **vars(seen)})
        return
    print(f"{cluster.name} on {cluster.runtime.name}, API at {url}\n")
    print_rows("Nodes", seen.nodes)
    print_rows("Pods", seen.pods)
    print_rows("Services", seen.services)
    print_rows("Daemons", seen.daemons)
