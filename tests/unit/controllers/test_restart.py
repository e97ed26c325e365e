"""The control plane as the process that it is, killed while it works: what was asked for still comes true."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.api.kinds import DEPLOYMENT, ENDPOINT_SLICE, NODE, POD
from testbed.api.objects import Key, is_ready, name
from testbed.client.http import HttpClient
from testbed.client.informer import Informer
from testbed.errors import ServiceUnavailable
from tests.unit.apiserver.parts import ControlPlane, control_plane
from tests.unit.controllers.harness import PaperAgent, add_node, deployment, endpoints, eventually, running, service


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path) as plane:
        yield plane


async def all_ready(client: HttpClient, count: int) -> None:
    async def check() -> bool:
        found = (await client.list(POD)).items
        told = await endpoints(client, "web")
        return len(found) == len(told) == count and all(map(is_ready, found))

    await eventually(check, f"{count} pods are ready and endpoints", timeout_s=30)


async def test_a_kill_in_the_middle_of_scaling_changes_nothing_in_the_end(plane: ControlPlane) -> None:
    async with HttpClient(f"unix://{plane.socket}", plane.token) as client:
        for node in ("a", "b"):
            await add_node(client, node)
        async with running(PaperAgent(client).run()):
            await client.create(service())
            await client.create(deployment(10))
            await all_ready(client, 10)
            for replicas in (60, 20):
                await client.patch(DEPLOYMENT, "web", {"spec": {"replicas": replicas}}, "default")
                plane.stop(signal.SIGKILL)
                with pytest.raises(ServiceUnavailable):
                    await client.get(NODE, "a")
                plane.start()
                await all_ready(client, replicas)


async def test_informers_resume_over_a_restart_without_listing_again(plane: ControlPlane) -> None:
    async with HttpClient(f"unix://{plane.socket}", plane.token) as client:
        await add_node(client, "a")
        told: list[str] = []
        informer = Informer(client, NODE)
        slices = Informer(client, ENDPOINT_SLICE)
        informer.on_change(lambda which: told.append(which.name))
        async with running(informer.run(), slices.run()):
            await informer.synced.wait()
            plane.stop(signal.SIGKILL)
            plane.start()
            await add_node(client, "b")

            async def caught_up() -> bool:
                return {name(node) for node in informer.items.values()} == {"a", "b"}

            await eventually(caught_up, "the new node is seen")
        assert told == ["a", "b"]
        assert Key("default", "kubernetes") in slices.items
