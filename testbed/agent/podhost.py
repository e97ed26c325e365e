"""What the workers of a host's pods share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from testbed.agent.events import Events
from testbed.agent.health import Probing
from testbed.agent.ipam import Addresses
from testbed.agent.podplan import FIRST_BACKOFF_S
from testbed.agent.podrun import PodRunner
from testbed.api.objects import Object
from testbed.client.informer import Informer
from testbed.client.protocol import Client
from testbed.topology.spec import ClusterSpec, NodeSpec

T = TypeVar("T")


@dataclass
class PodHost:
    """One host, as seen by the workers of its pods."""

    client: Client
    runtime: str
    runner: PodRunner
    addresses: Addresses
    events: Events
    pods: Informer
    work: Executor
    """Threads for what takes milliseconds."""
    stops: Executor
    """Threads for what waits for a program to end."""
    starting: asyncio.Semaphore
    """How many pods may work on their parts at a time: more would only take turns."""
    ground: Callable[[Object], tuple[ClusterSpec, NodeSpec] | None]
    """The cluster and the node of a pod; None while the node is not wired."""
    probing: Probing
    first_backoff_s: float = FIRST_BACKOFF_S

    async def in_thread(self, call: Callable[..., T], *args: object) -> T:
        """Run something short that blocks."""
        return await asyncio.get_running_loop().run_in_executor(self.work, partial(call, *args))

    async def stop(self, container_id: str, grace_s: float) -> None:
        """Stop a container within that time; see Sandboxes.stop."""
        await asyncio.get_running_loop().run_in_executor(self.stops, self.runner.stop, container_id, grace_s)
