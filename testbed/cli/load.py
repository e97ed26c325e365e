"""`load`: any stock locustfile against any target, from a load pod on a node of your choice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli.options import ClusterOption, NamespaceOption, Output, OutputOption
from testbed.cli.terminal import note, print_json, print_table, progress

if TYPE_CHECKING:
    from testbed.cli.load_pod import LoadRequest
    from testbed.loadgen.records import LoadRecord
    from testbed.runtime.protocol import Progress


def load(
    target: Annotated[
        str, typer.Option(help="A URL, service/NAME or pod/NAME; :PORT behind the name where it has several.")
    ] = "service/web",
    locustfile: Annotated[
        Path | None, typer.Option(help="Any locustfile; by default one that gets / as fast as it can.")
    ] = None,
    client_node: Annotated[str, typer.Option(help="The node to load from; by default the scheduler's choice.")] = "",
    host_network: Annotated[bool, typer.Option("--host-network", help="Load from the node itself, no pod.")] = False,
    users: Annotated[int, typer.Option(help="How many users at once.", min=1)] = 10,
    seconds: Annotated[float, typer.Option(help="For how long.", min=0.5)] = 10.0,
    namespace: NamespaceOption = "default",
    cluster: ClusterOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Load a target with Locust from inside the cluster, and print how it felt.

    Exits with 1 where requests failed, or none was answered.
    """
    from testbed.cli.load_pod import LoadRequest, read_locustfile
    from testbed.errors import CheckFailed

    request = LoadRequest(
        target=target,
        locustfile=read_locustfile(locustfile),
        node=client_node,
        host_network=host_network,
        users=users,
        seconds=seconds,
        namespace=namespace,
    )
    with progress() as show:
        record = asyncio.run(_load(cluster, request, show))
    if output is Output.JSON:
        print_json(record.to_json())
    else:
        _print(record)
    if record.errors:
        total = record.requests + record.errors
        raise CheckFailed(f"{record.errors:,} of {total:,} requests failed; the first one: {record.error}")
    if not record.requests:
        raise CheckFailed(f"no request was answered within {record.seconds:.1f} s: does anybody serve {record.host}?")


async def _load(cluster: str, request: LoadRequest, show: Progress) -> LoadRecord:
    from testbed.cli.load_pod import run_load
    from testbed.cli.pods import client_of_cluster

    async with client_of_cluster(cluster) as client:
        return await run_load(client, request, show, note)


def _print(record: LoadRecord) -> None:
    title = f"{record.host}, {record.users} users, {record.seconds:.1f} s: {record.requests_per_s:,.0f} requests/s"
    names = [
        [
            f"{row['method']} {row['name']}",
            f"{row['requests']:,}",
            f"{row['errors']:,}",
            *(f"{row[f'p{percent}_us']:,.0f}" for percent in (50, 90, 99)),
        ]
        for row in record.names
    ]
    latencies = (record.p50_us, record.p90_us, record.p99_us)
    total = ["all", f"{record.requests:,}", f"{record.errors:,}", *(f"{value:,.0f}" for value in latencies)]
    columns = ["REQUEST", "ANSWERED", "FAILED", "P50 µs", "P90 µs", "P99 µs"]
    print_table(title, columns, [*names, *([total] if len(names) != 1 else [])])
