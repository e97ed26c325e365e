"""A cluster's life as a user sees it: `up` until everything works, `down` until nothing is left."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

from testbed.api.kinds import CONFIG_MAP, EVENT
from testbed.api.objects import Key, Object
from testbed.api.wellknown import CLUSTER_CONFIG_MAP, SYSTEM_NAMESPACE
from testbed.client.informer import Informer
from testbed.client.protocol import Client
from testbed.errors import NotFound, ServiceUnavailable, TimedOut
from testbed.runtime.apply import UP, Applied, apply, prune
from testbed.runtime.connect import client_of
from testbed.runtime.dns import dns_manifests
from testbed.runtime.protocol import Endpoint, Progress, Runtime
from testbed.runtime.readiness import WATCHED, Lack, Seen, is_current, lacks, summary, unregistered
from testbed.topology.manifests import Manifest
from testbed.topology.spec import ClusterSpec
from testbed.waiting import wait_until_async

log = logging.getLogger(__name__)

API_TIMEOUT_S = 60.0
UP_TIMEOUT_S = 180.0
HOPELESS_S = 10.0
"""How long to wait for what hardly comes any more."""
_COALESCE_S = 0.005
_SHOWN = 8
"""How many things a timeout names; the rest is counted."""


async def up(
    spec: ClusterSpec,
    manifests: Sequence[Manifest],
    runtime: Runtime,
    progress: Progress,
    *,
    timeout_s: float = UP_TIMEOUT_S,
) -> Endpoint:
    """Make the cluster be what the spec and the manifests say, whatever there is already, and wait until it works.

    On return every node is Ready and has reached every other with full-size packets, every pod of the manifests is
    Ready, and every node's service rules are those of the newest Services and endpoints. Raises TimedOut naming what
    is missing, and BadInput with file and line for manifests that the API server refuses.
    """
    await asyncio.to_thread(runtime.create, spec, progress)
    return await settle(spec, manifests, runtime, progress, timeout_s=timeout_s)


async def settle(
    spec: ClusterSpec,
    manifests: Sequence[Manifest],
    runtime: Runtime,
    progress: Progress,
    *,
    timeout_s: float = UP_TIMEOUT_S,
) -> Endpoint:
    """The second half of `up`, after `runtime.create`: hand over spec and manifests, and wait."""
    endpoint = runtime.endpoint(spec.name)
    async with client_of(endpoint) as client:
        await bring_up(client, spec, manifests, progress, timeout_s=timeout_s)
    return endpoint


async def bring_up(
    client: Client, spec: ClusterSpec, manifests: Sequence[Manifest], progress: Progress, *, timeout_s: float
) -> None:
    """Everything of `up` that goes through the API."""
    progress("waiting for the API server")
    await _hand_over(client, spec)
    waiting = _Waiting(client, spec, progress, timeout_s)
    async with waiting.following():
        # the DNS at once: it takes longest to get ready, and while it starts, nodes register
        own = await apply(client, dns_manifests(spec, manifests), applied_by=UP)
        # then the nodes: with only some of them there, the scheduler would put every pod on those
        await waiting.until(lambda seen: unregistered(spec, seen))
        progress("applying manifests")
        applied = [*own, *await apply(client, manifests, applied_by=UP)]
        for result in (*applied, *await prune(client, applied)):
            log.info("%s", result)
        waiting.learn(applied)
        wanted = [(result.kind, result.key) for result in applied]
        await waiting.until(lambda seen: lacks(spec, wanted, seen))


async def _hand_over(client: Client, spec: ClusterSpec) -> None:
    """Write the spec where agents and daemons read it, once the API server answers."""

    async def config() -> Object | None:
        with suppress(ServiceUnavailable, NotFound):
            return await client.get(CONFIG_MAP, CLUSTER_CONFIG_MAP, SYSTEM_NAMESPACE)
        return None

    held = await wait_until_async(config, API_TIMEOUT_S, f"an answer of {spec.name}'s API server")
    if not is_current(held, spec):
        data = {"spec.json": json.dumps(spec.to_json())}
        await client.patch(CONFIG_MAP, CLUSTER_CONFIG_MAP, {"data": data}, SYSTEM_NAMESPACE)


class _Waiting:
    """Live copies of all that readiness depends on, and a deadline."""

    def __init__(self, client: Client, spec: ClusterSpec, progress: Progress, timeout_s: float) -> None:
        self._client, self._cluster, self._progress = client, spec.name, progress
        self._started = asyncio.get_running_loop().time()
        self._deadline = self._started + timeout_s
        self._informers = {kind: Informer(client, kind, where) for kind, where in WATCHED.items()}
        self._changed = _Coalesced()
        for informer in self._informers.values():
            informer.on_change(self._changed.note)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """While inside, the copies follow the cluster."""
        tasks = [asyncio.create_task(informer.run()) for informer in self._informers.values()]
        try:
            await asyncio.gather(*(informer.synced.wait() for informer in self._informers.values()))
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def learn(self, applied: Iterable[Applied]) -> None:
        """What was written is known before the watches tell it: nothing older is taken for the answer."""
        for result in applied:
            if informer := self._informers.get(result.kind):
                informer.learn(result.object)

    async def until(self, lacking: Callable[[Seen], list[Lack]]) -> None:
        """Return as soon as nothing is lacking; TimedOut names what is, and the last event of each pod."""
        seen = {kind: informer.items for kind, informer in self._informers.items()}
        clock = asyncio.get_running_loop().time
        hopeless_since = math.inf
        while missing := lacking(seen):
            self._progress(summary(missing))
            hopeless_since = min(hopeless_since, clock()) if all(lack.is_hopeless for lack in missing) else math.inf
            if not await self._changed.wait(min(self._deadline, hopeless_since + HOPELESS_S)):
                raise TimedOut(await _what_is_missing(self._client, self._cluster, missing, clock() - self._started))


class _Coalesced:
    """Many changes, one look: `wait` returns a little after the first change since it last returned."""

    def __init__(self) -> None:
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def note(self, _: Key) -> None:
        """Something changed."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_COALESCE_S, self._due.set)

    async def wait(self, deadline: float) -> bool:
        """Until something has changed, or (False) until the deadline on the loop's clock."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._due.wait()
        except TimeoutError:
            return False
        self._due.clear()
        self._timer = None
        return True


async def _what_is_missing(client: Client, cluster: str, missing: Sequence[Lack], after_s: float) -> str:
    lines = [f"{cluster} is not up after {after_s:.0f} s; it lacks:"]
    for lack in missing[:_SHOWN]:
        told = f"; last event: {event}" if lack.pod and (event := await _last_event(client, lack.pod)) else ""
        lines.append(f"  {lack}{told}")
    if len(missing) > _SHOWN:
        lines.append(f"  and {len(missing) - _SHOWN} more")
    lines.append(
        "It still runs: `testbed status` shows it, `testbed logs POD` its programs, `testbed down` removes it."
    )
    return "\n".join(lines)


async def _last_event(client: Client, pod: Key) -> str:
    listed = await client.list(EVENT, pod.namespace, field_selector=f"involvedObject.name={pod.name}")
    if not listed.items:
        return ""
    last = max(listed.items, key=_when)
    return f"{last.get('reason')}: {last.get('message')}"


def _when(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")
