"""One host with its agent's pods: everything in memory but the files of pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from testbed.agent.fake import FakeSandboxes
from testbed.agent.identity import Identity
from testbed.agent.pods import Pods
from testbed.agent.wiring import Kernel, Wiring
from testbed.api.kinds import EVENT, POD
from testbed.api.objects import Object, is_ready, name, status, uid
from testbed.client.fake import FakeClient
from testbed.kernel.fake import FakeLinks, FakeNft
from testbed.topology.spec import ClusterSpec
from testbed.waiting import wait_until_async
from tests.unit.agent.specs import cluster, node

SOON_S = 10.0


class Host:
    """One host with its nodes, everything in memory but the files of pods."""

    def __init__(self, directory: Path, spec: ClusterSpec | None = None) -> None:
        self.spec = spec or cluster(node("a", 1), node("client", 9, role="external"), images={"nginx:*": "testbed/web"})
        self.client = FakeClient()
        self.directory = directory
        self.identity = Identity("here", "netns", directory / "state", "secret", "-----BEGIN CERTIFICATE-----")
        self.switch = FakeLinks()
        self.sandboxes = FakeSandboxes()
        for place in ("control-plane", *(each.name for each in self.spec.nodes)):
            (directory / place).touch()
            self.sandboxes.places[place] = directory / place

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Pods]:
        """An agent's pods while inside; leaving is like kill -9, for everything but the threads."""
        kernel = Kernel(self._links, FakeNft, lambda: None, lambda _: None)
        wiring = Wiring("here", self.sandboxes.place, kernel)
        pods = Pods(self.client, self.sandboxes, wiring, self.identity, first_backoff_s=2)
        runs = (pods.objects.run(), pods.config_maps.run(), pods.events.run(), pods.run())
        tasks = [asyncio.create_task(run) for run in runs]
        pods.follow(self.spec, wiring.sync(self.spec))
        try:
            yield pods
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def get(self, which: Object) -> Object:
        """The pod as the API has it."""
        return await self.client.get(POD, name(which), "default")

    async def until(self, which: Object, check: Callable[[Object], Any], what: str) -> Object:
        """The pod, as soon as the check holds for it."""

        async def look() -> Object | None:
            found = await self.get(which)
            return found if check(found) else None

        return await wait_until_async(look, SOON_S, what)

    async def create(self, obj: Object) -> Object:
        """Create a pod and wait until it is Ready."""
        created = await self.client.create(obj)
        return await self.until(created, is_ready, "the pod's readiness")

    async def events(self) -> list[str]:
        """The reasons of all Events."""
        return [event["reason"] for event in (await self.client.list(EVENT)).items]

    async def until_told(self, reason: str) -> None:
        """Until there is an Event with that reason."""

        async def told() -> bool:
            return reason in await self.events()

        await wait_until_async(told, SOON_S, f"the Event {reason}")

    async def until_gone(self, which: Object) -> None:
        """Until the API has no such pod any more."""

        async def gone() -> bool:
            return all(uid(obj) != uid(which) for obj in (await self.client.list(POD)).items)

        await wait_until_async(gone, SOON_S, "the pod's end")

    def _links(self, netns: Path | None) -> FakeLinks:
        return self.switch if netns is None else self.switch.enter(netns)


def container_status(obj: Object, number: int = 0) -> dict[str, Any]:
    """What a pod's status says of one of its containers; empty where it says nothing yet."""
    found: list[dict[str, Any]] = status(obj).get("containerStatuses") or []
    return found[number] if found else {}
