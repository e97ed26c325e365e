"""`apply`, `logs` and `exec`: what one does with the workloads of a running cluster."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli.options import ClusterOption, ContainerOption, NamespaceOption, Output, OutputOption
from testbed.cli.terminal import print_json

if TYPE_CHECKING:
    from testbed.client.http import HttpClient
    from testbed.runtime.apply import Applied
    from testbed.topology.manifests import Manifest

PodArgument = Annotated[str, typer.Argument(help="POD, NAMESPACE/POD, deployment/NAME or node/NAME.")]


def client_of_cluster(cluster: str) -> HttpClient:
    """A client for the cluster of that name, or the only one."""
    from testbed.runtime.choose import find
    from testbed.runtime.connect import client_of

    found = find(cluster)
    return client_of(found.runtime.endpoint(found.name))


def apply(
    files: Annotated[list[Path], typer.Argument(help="Kubernetes manifests.", metavar="FILE…")],
    cluster: ClusterOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Create or change objects from manifests, as `kubectl apply` does."""
    from testbed.topology.manifests import load_manifests

    applied = asyncio.run(_apply(cluster, load_manifests(files)))
    if output is Output.JSON:
        print_json(
            [{"kind": a.kind.kind, "namespace": a.key[0], "name": a.key[1], "action": a.action} for a in applied]
        )
        return
    for result in applied:
        print(result)


async def _apply(cluster: str, manifests: list[Manifest]) -> list[Applied]:
    from testbed.runtime.apply import apply as apply_all

    async with client_of_cluster(cluster) as client:
        return await apply_all(client, manifests)


def logs(
    pod: PodArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the container ends.")] = False,
    tail: Annotated[int | None, typer.Option(help="Only that many lines of what there is.", min=0)] = None,
    container: ContainerOption = "",
    namespace: NamespaceOption = "default",
    cluster: ClusterOption = "",
) -> None:
    """Print what a container of a pod has written."""
    asyncio.run(_logs(cluster, namespace, pod, container, follow=follow, tail=tail))


async def _logs(cluster: str, namespace: str, pod: str, container: str, *, follow: bool, tail: int | None) -> None:
    from testbed.runtime.podref import find_pod

    async with client_of_cluster(cluster) as client:
        found = await find_pod(client, pod, namespace)
        async for chunk in client.logs(*found, container, follow=follow, tail=tail):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


def exec_(
    pod: PodArgument,
    argv: Annotated[list[str], typer.Argument(help="The program and its arguments.", metavar="[--] PROGRAM [ARG…]")],
    tty: Annotated[
        bool | None,
        typer.Option("--tty/--no-tty", "-t/-T", help="A terminal for the program; by default where this is one."),
    ] = None,
    stdin: Annotated[bool, typer.Option("--stdin/--no-stdin", "-i/-I", help="Pass standard input on.")] = True,
    container: ContainerOption = "",
    namespace: NamespaceOption = "default",
    cluster: ClusterOption = "",
) -> None:
    """Run a program in a pod, or on a node: testbed exec node/a -- ip route

    Input, output, terminal and exit code are passed through. What runs on a node sees its devices, routes and rules.
    """
    from testbed.cli.attach import run_attached
    from testbed.runtime.podref import find_pod

    async def attached() -> int:
        async with client_of_cluster(cluster) as client:
            found = await find_pod(client, pod, namespace)
            return await run_attached(client, found, program, container=container, tty=has_tty, stdin=stdin)

    program = argv[1:] if argv[0] == "--" else argv
    has_tty = sys.stdin.isatty() and sys.stdout.isatty() if tty is None else tty
    raise typer.Exit(asyncio.run(attached()))
