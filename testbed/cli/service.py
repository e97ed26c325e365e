"""`service` and `proxy`: how Services are served, and whether nodes hold what they should."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testbed.cli.options import ClusterOption, Output, OutputOption
from testbed.cli.pods import client_of_cluster
from testbed.cli.terminal import heading, print_json, print_rows
from testbed.errors import BadInput, CheckFailed, TestbedError

if TYPE_CHECKING:
    from testbed.runtime.nodedaemons import Differences, Served
    from testbed.runtime.servicepath import ServicePath

INDENT = "  "
ADDRESS = re.compile(r"(?<![0-9.])[0-9]+(?:\.[0-9]+){3}(?![0-9]|\.[0-9])")
"""An IPv4 address in nft's and other programs' words."""
LISTED = re.compile(r"(?<![^\s])([0-9]+(?:\.[0-9]+){3}):[0-9]+(?=,|$)")
"""One of several addresses with their ports."""


class Action(StrEnum):
    """What is done about a proxy."""

    DIFF = "diff"


def service(
    which: Annotated[
        str, typer.Argument(help="The Service; NAME alone is one in namespace default.", metavar="[NAMESPACE/]NAME")
    ],
    node: Annotated[str, typer.Option(help="Ask this node only.")] = "",
    cluster: ClusterOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Show the path of a Service: addresses, endpoints, and the way of a connection through every node's kernel.

    Chains, maps, affinity entries and counters are read from the kernels at this moment.
    """
    found = asyncio.run(_service(cluster, which, node))
    if output is Output.JSON:
        print_json(found.document())
    else:
        _print(found)
    if mute := [each for each in found.nodes if each.silence]:
        from testbed.runtime.nodedaemons import silent

        raise TestbedError(silent([each.node for each in mute], mute[0].silence))


async def _service(cluster: str, which: str, node: str) -> ServicePath:
    from testbed.api.objects import Key
    from testbed.runtime.servicepath import service_path

    namespace, slash, name = which.rpartition("/")
    if not name or "/" in namespace or (slash and not namespace):
        raise BadInput(f"{which!r} names no Service: write it as NAMESPACE/NAME, or as NAME for one in default")
    async with client_of_cluster(cluster) as client:
        return await service_path(client, Key(namespace or "default", name), node)


def _print(found: ServicePath) -> None:
    selects = f", selects pods with {found.selector}" if found.selector else ""
    print(f"{found.namespace}/{found.name}: {found.type}{selects}")
    for what, value in found.facts.items():
        print(f"{INDENT}{what}: {value}")
    if found.remark:
        print(f"{INDENT}{found.remark}")
    print()
    print_rows("Ports", found.ports)
    print_rows("Endpoints", found.endpoints)
    if not found.endpoints and not found.remark:
        print("Nobody is behind it: it has no endpoints.\n")
    for address, nodes in found.switch.items():
        print(f"The switch sends {address} to {', '.join(nodes) or 'nobody: it is dropped'}.\n")
    if not found.remark:
        pods = {row["address"]: f"{row['pod']} on {row['node']}" for row in found.endpoints if row["pod"]}
        for group in _alike(found.nodes):
            _print_nodes(group, pods)


def _alike(nodes: Sequence[Served]) -> list[list[Served]]:
    """Nodes that do and say the same, together."""
    groups: dict[str, list[Served]] = {}
    for each in nodes:
        groups.setdefault(repr((each.mode, each.ports, each.health_check, each.silence)), []).append(each)
    return list(groups.values())


def _print_nodes(group: Sequence[Served], pods: Mapping[str, str]) -> None:
    names, one = ", ".join(each.node for each in group), group[0]
    print(heading(f"{'Nodes' if len(group) > 1 else 'Node'} {names}{f' ({one.mode})' if one.mode else ''}"))
    if one.silence:
        print(f"{INDENT}{'do' if len(group) > 1 else 'does'} not answer: {one.silence}")
    elif not one.ports:
        print(f"{INDENT}{'serve' if len(group) > 1 else 'serves'} nothing for it, or not yet")
    for port in one.ports:
        print(f"{INDENT}{summary(port)}")
        for line in port["path"]:
            print(f"{INDENT}{INDENT}{annotated(line, pods)}")
    if check := one.health_check:
        verdict = "200" if check["local_endpoints"] else "503"
        print(f"{INDENT}port {check['port']} answers {verdict}: {check['local_endpoints']} ready endpoints are here")
    print()


def summary(port: Mapping[str, Any]) -> str:
    """What the node does with a connection to this port of a Service, in a sentence."""
    name = f" ({port['name']})" if port["name"] else ""
    inside = _choice(port["internal"], port["internalRefusal"])
    outside = _choice(port["external"], port["externalRefusal"])
    is_public = bool(port["nodePort"] or port["externalIPs"] or port["loadBalancerIPs"])
    ways = " or from outside" if is_public and inside == outside else ""
    other = f"; what comes from outside {outside}" if is_public and inside != outside else ""
    return f"{port['port']}/{port['protocol']}{name}: a connection to the ClusterIP{ways} {inside}{other}."


def _choice(endpoints: Sequence[str], refusal: str) -> str:
    if refusal:
        return (
            "is refused: there are no endpoints" if refusal == "refuse" else "is dropped: no endpoint is on this node"
        )
    return f"goes to {endpoints[0]}" if len(endpoints) == 1 else f"goes to one of {len(endpoints)} endpoints"


def annotated(line: str, pods: Mapping[str, str]) -> str:
    """The line, and behind it the pod whose address it holds; where it lists several, each pod behind its own."""
    found = {address for address in ADDRESS.findall(line) if address in pods}
    if len(found) == 1:
        return f"{line}  ({pods[found.pop()]})"
    return LISTED.sub(lambda match: f"{match[0]} ({pods[match[1]]})" if match[1] in pods else match[0], line)


def proxy(
    action: Annotated[Action, typer.Argument(help="diff: compare the kernel with what it should hold.")],
    node: Annotated[str, typer.Argument(help="The node.")],
    cluster: ClusterOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what a node's kernel holds (-) against what it should (+): testbed proxy diff NODE

    Exits with 1 where something differs. Whatever somebody has changed is put right within seconds.
    """
    assert action is Action.DIFF, "the only one"
    found = asyncio.run(_differences(cluster, node))
    if output is Output.JSON:
        print_json(_document(found))
    else:
        for line in found.lines:
            print(line)
    if found.lines:
        count = f"{len(found.lines)} differences" if len(found.lines) > 1 else "1 difference"
        raise CheckFailed(
            f"node {found.node} ({found.mode}): {count} of what its kernel holds (-) to what it should (+)"
        )
    if output is Output.TEXT:
        print(f"Node {found.node} ({found.mode}): its kernel holds exactly what it should.")


async def _differences(cluster: str, node: str) -> Differences:
    from testbed.runtime.nodedaemons import differences, workers

    async with client_of_cluster(cluster) as client:
        (known,) = await workers(client, node)
        return await differences(client, known)


def _document(found: Differences) -> dict[str, Any]:
    return {"node": found.node, "mode": found.mode, "differences": list(found.lines)}
