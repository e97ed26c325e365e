"""Which pod a user means by what was typed."""

from __future__ import annotations

import difflib

from testbed.api.kinds import DEPLOYMENT, POD
from testbed.api.objects import Key, is_ready, key, name, spec
from testbed.api.selectors import structured_selector
from testbed.client.protocol import Client
from testbed.errors import BadInput, NotFound


async def find_pod(client: Client, reference: str, namespace: str) -> Key:
    """`POD`, `NAMESPACE/POD`, or `deployment/NAME` for its first Ready pod; BadInput for none."""
    before, slash, after = reference.rpartition("/")
    if before in ("deployment", "deploy", "deployments"):
        return await _pod_of_deployment(client, Key(namespace, after))
    where = Key(before if slash and before not in ("pod", "pods", "po") else namespace, after)
    try:
        return key(await client.get(POD, where.name, where.namespace))
    except NotFound:
        raise BadInput(await _no_such_pod(client, where)) from None


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
