"""All controllers of a cluster, over one set of informers."""

from __future__ import annotations

import asyncio
from typing import Any

from testbed.client.protocol import Client
from testbed.controllers.cluster import Cluster
from testbed.controllers.deployments import Deployments
from testbed.controllers.endpoints import EndpointsObjects
from testbed.controllers.endpointslices import EndpointSlices
from testbed.controllers.garbage import Garbage
from testbed.controllers.kubernetes import KubernetesService
from testbed.controllers.loadbalancers import LoadBalancers
from testbed.controllers.loop import Loop
from testbed.controllers.mirroring import Mirroring
from testbed.controllers.nodes import Nodes
from testbed.controllers.replicasets import ReplicaSets
from testbed.controllers.scheduler import Scheduler

CONTROLLERS = (
    Scheduler, EndpointSlices, Deployments, ReplicaSets, EndpointsObjects, Mirroring, LoadBalancers, KubernetesService,
    Nodes, Garbage,
)  # fmt: skip


async def run_controllers(client: Client) -> None:
    """Run them until cancelled. Errors of the API are logged and tried again; nothing is done before every kind has
    been listed once, so that a restart does not mistake what it has yet to read for what is not there."""
    cluster = Cluster(client)
    loops: list[Loop[Any]] = [controller(cluster).loop for controller in CONTROLLERS]
    async with asyncio.TaskGroup() as group:
        for informer in cluster.informers.values():
            group.create_task(informer.run())
        await cluster.synced()
        for loop in loops:
            group.create_task(loop.run())
