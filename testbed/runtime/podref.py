"""Which pod a user means by what was typed.

A node has no programs of its own to be asked. `node/NAME` means a pod on the node's own network that is made on first
use and stays: what runs in it sees the node's devices, routes and rules (as with `kubectl debug node/NAME`).
"""

from __future__ import annotations

import difflib
from contextlib import suppress

from testbed.api.kinds import DEPLOYMENT, NODE, POD
from testbed.api.objects import Key, Object, is_ready, key, name, namespace, spec, status
from testbed.api.selectors import structured_selector
from testbed.api.wellknown import SYSTEM_NAMESPACE
from testbed.client.protocol import Client
from testbed.errors import AlreadyExists, BadInput, NotFound
from testbed.waiting import wait_until_async

DEPLOYMENTS, NODES, PODS = ("deployment", "deployments", "deploy"), ("node", "nodes", "no"), ("pod", "pods", "po")
START_TIMEOUT_S = 30.0


async def find_pod(client: Client, reference: str, home: str) -> Key:
    """`POD`, `NAMESPACE/POD`, `deployment/NAME` (its first Ready pod) or `node/NAME`; BadInput for none."""
    sort, slash, after = reference.rpartition("/")
    if sort in DEPLOYMENTS:
        return await _pod_of_deployment(client, Key(home, after))
    if sort in NODES:
        return await _pod_of_node(client, after)
    where = Key(sort if slash and sort not in PODS else home, after)
    try:
        return key(await client.get(POD, where.name, where.namespace))
    except NotFound:
        raise BadInput(await _no_such_pod(client, where)) from None


async def _pod_of_node(client: Client, node: str) -> Key:
    try:
        await client.get(NODE, node)
    except NotFound:
        names = sorted(name(known) for known in (await client.list(NODE)).items)
        raise BadInput(f"there is no node {node}; there is {', '.join(names) or 'none at all'}") from None
    pod = node_pod(node)
    with suppress(AlreadyExists):
        await client.create(pod)

    async def runs() -> bool:
        return status(await client.get(POD, name(pod), namespace(pod))).get("phase") == "Running"

    await wait_until_async(runs, START_TIMEOUT_S, f"the start of pod {name(pod)}")
    return key(pod)


def node_pod(node: str) -> Object:
    """The pod through which a node is looked at."""
    container = {
        "name": "node",
        "image": "testbed/pause",
        "securityContext": {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"node-{node}", "namespace": SYSTEM_NAMESPACE},
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }


async def _pod_of_deployment(client: Client, which: Key) -> Key:
    try:
        deployment = await client.get(DEPLOYMENT, which.name, which.namespace)
    except NotFound:
        raise BadInput(f"there is no deployment {which.name} in namespace {which.namespace}") from None
    selects = structured_selector(spec(deployment).get("selector") or {})
    pods = [pod for pod in (await client.list(POD, which.namespace)).items if selects(pod) and is_ready(pod)]
    if not pods:
        raise BadInput(f"deployment {which.name} in namespace {which.namespace} has no pod that is Ready")
    return key(min(pods, key=name))


async def _no_such_pod(client: Client, where: Key) -> str:
    names = [name(pod) for pod in (await client.list(POD, where.namespace)).items]
    same_start = [known for known in sorted(names) if known.startswith(where.name)]
    likely = same_start or difflib.get_close_matches(where.name, names, n=3) or sorted(names)[:5]
    hint = f"; there is {', '.join(likely)}" if likely else "; there is none at all"
    return f"there is no pod {where.name} in namespace {where.namespace}{hint}"
