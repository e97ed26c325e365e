"""What node daemons are asked, over the API server: how a Service is served, and whether the kernel holds all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from testbed.api.kinds import NODE
from testbed.api.objects import Key, labels, name
from testbed.api.wellknown import METRICS_PORT, ROLE_LABEL
from testbed.client.http import HttpClient
from testbed.errors import ApiError, BadInput, NotFound, TestbedError


@dataclass(frozen=True)
class Served:
    """What one node does for a Service."""

    node: str
    mode: str = ""
    ports: Sequence[Mapping[str, Any]] = ()
    """As `node.pages.described` has them, each with its `path`: sentences. None where the node serves nothing."""
    health_check: Mapping[str, Any] | None = None
    silence: str = ""
    """Why the node's daemon could not be asked; empty where it could."""


@dataclass(frozen=True)
class Differences:
    """What a node's kernel holds (`- …`) against what it should (`+ …`), a line each."""

    node: str
    mode: str
    lines: Sequence[str]


async def workers(client: HttpClient, only: str = "") -> list[str]:
    """The nodes that have a proxy, in order, or only that one. BadInput where it is none of them."""
    nodes = {name(node): labels(node).get(ROLE_LABEL) for node in (await client.list(NODE)).items}
    found = sorted(node for node, role in nodes.items() if role != "external")
    if not only:
        return found
    if only in nodes and only not in found:
        raise BadInput(f"node {only} is outside the cluster and has no proxy; those that have one: {', '.join(found)}")
    if only not in nodes:
        raise BadInput(f"there is no node {only}; there is {', '.join(found) or 'none at all'}")
    return [only]


async def served(client: HttpClient, node: str, service: Key) -> Served:
    """How the node serves the Service; a node that is silent is no error here, others may answer."""
    query = urlencode({"namespace": service.namespace, "name": service.name})
    try:
        said = await _asked(client, node, f"proxy/service?{query}")
    except NotFound:
        return Served(node)
    except ApiError as error:
        return Served(node, silence=str(error))
    return Served(node, said["mode"], said["ports"], said["healthCheck"])


async def differences(client: HttpClient, node: str) -> Differences:
    """Everything on that node that is not as it should be. Raises TestbedError where its daemon does not answer."""
    try:
        said = await _asked(client, node, "proxy/diff")
    except ApiError as error:
        raise TestbedError(silent([node], str(error))) from error
    return Differences(said["node"], said["mode"], said["differences"])


def silent(nodes: Sequence[str], why: str) -> str:
    """The sentence for daemons that do not answer."""
    whose = f"node daemon of {nodes[0]} does" if len(nodes) == 1 else f"node daemons of {', '.join(nodes)} do"
    return f"the {whose} not answer: {why}; see `testbed status` for when it was last heard of"


async def _asked(client: HttpClient, node: str, path: str) -> Any:
    return json.loads(await client.get_raw(f"{NODE.path('', f'{node}:{METRICS_PORT}', 'proxy')}/{path}"))
