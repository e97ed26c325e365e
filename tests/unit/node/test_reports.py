"""What node daemons write to the API."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from testbed.api import objects
from testbed.api.kinds import LEASE, NODE, Kind
from testbed.api.objects import Key, condition
from testbed.client.fake import FakeClient
from testbed.errors import Conflict, ServiceUnavailable
from testbed.node.reports import Leases, write_condition
from testbed.waiting import wait_until_async


@asynccontextmanager
async def running(leases: Leases) -> AsyncIterator[None]:
    task = asyncio.create_task(leases.run())
    yield
    task.cancel()
    await asyncio.wait([task])


async def versions(client: FakeClient) -> dict[str, str]:
    found = (await client.list(LEASE)).items
    return {lease["metadata"]["name"]: objects.annotations(lease)["testbed/synced-resource-version"] for lease in found}


async def until(client: FakeClient, wanted: dict[str, str]) -> None:
    async def check() -> bool:
        return await versions(client) == wanted

    await wait_until_async(check, 2, f"leases {wanted}")


async def test_a_lease_carries_the_newest_version_of_its_node() -> None:
    client = FakeClient()
    leases = Leases(client)
    async with running(leases):
        for version in range(1, 50):
            leases.synced("a", version)
        leases.synced("b", 7)
        await until(client, {"node-daemon-a": "49", "node-daemon-b": "7"})
        leases.synced("a", 50)
        await until(client, {"node-daemon-a": "50", "node-daemon-b": "7"})


async def test_a_lease_that_could_not_be_written_is_written_later() -> None:
    failures = iter([True, True])

    def intercept(verb: str, kind: Kind, _: Key) -> None:
        if kind == LEASE and verb in ("patch", "create") and next(failures, False):
            raise ServiceUnavailable("the API server is restarting")

    client = FakeClient(intercept)
    leases = Leases(client)
    async with running(leases):
        leases.synced("a", 3)
        await until(client, {"node-daemon-a": "3"})


async def test_the_lease_of_a_node_that_goes_while_it_is_written_goes_too() -> None:
    is_written = asyncio.Event()

    def intercept(verb: str, kind: Kind, _: Key) -> None:
        if kind == LEASE and verb == "create":
            leases.forget("a")
            is_written.set()

    client = FakeClient(intercept)
    leases = Leases(client)
    async with running(leases):
        leases.synced("a", 3)
        await is_written.wait()
        await until(client, {})


async def test_the_lease_of_a_node_that_has_gone_is_deleted_as_soon_as_the_api_answers() -> None:
    failures = iter([True, True])

    def intercept(verb: str, kind: Kind, _: Key) -> None:
        if kind == LEASE and verb == "delete" and next(failures, False):
            raise ServiceUnavailable("the API server is restarting")

    client = FakeClient(intercept)
    leases = Leases(client)
    async with running(leases):
        leases.synced("a", 3)
        await until(client, {"node-daemon-a": "3"})
        leases.forget("a")
        await until(client, {})


async def test_a_condition_is_put_beside_others_also_when_somebody_else_writes_at_the_same_time() -> None:
    conflicts = iter([True, True])

    def intercept(verb: str, _: Kind, __: Key) -> None:
        if verb == "update" and next(conflicts, False):
            raise Conflict("the object has been modified")

    client = FakeClient(intercept)
    ready = {"type": "Ready", "status": "True"}
    await client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}})
    await client.patch(NODE, "a", {"status": {"conditions": [ready]}}, subresource="status")
    await write_condition(client, "a", {"type": "NetworkUnavailable", "status": "False"})
    node = await client.get(NODE, "a")
    assert condition(node, "Ready") == ready
    assert condition(node, "NetworkUnavailable")["status"] == "False"
