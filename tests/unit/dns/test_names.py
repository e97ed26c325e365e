"""Which records came and which went, as objects do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from testbed.api.kinds import ENDPOINT_SLICE, POD, SERVICE
from testbed.client.fake import FakeClient
from testbed.client.informer import Informer
from testbed.dns.names import Names, Sources
from testbed.dns.records import Record, zone_records
from testbed.waiting import wait_until_async
from tests.unit.dns.objects import endpoint, pod, service, slice_of

WEB = Record("web.default.svc.cluster.local.", "A", "10.96.4.5")
POD_NAME = Record("10-244-1-2.default.pod.cluster.local.", "A", "10.244.1.2")


@asynccontextmanager
async def following(client: FakeClient) -> AsyncIterator[Names]:
    sources = Sources(*(Informer(client, kind) for kind in (SERVICE, ENDPOINT_SLICE, POD)))
    names = Names(sources, "cluster.local", "10.96.0.10", lambda: None)
    tasks = [asyncio.create_task(informer.run()) for informer in sources.informers]
    try:
        await asyncio.gather(*(informer.synced.wait() for informer in sources.informers))
        yield names
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def taken(names: Names) -> set[Record]:
    """What the next changes touch."""

    async def check() -> set[Record]:
        return names.take()

    return await wait_until_async(check, 2.0, "a change of records")


async def test_the_first_look_brings_everything() -> None:
    client = FakeClient()
    await client.create(service())
    async with following(client) as names:
        assert WEB in names.take()
        assert zone_records("cluster.local", "10.96.0.10") | {WEB} <= set(names.records)
        assert names.take() == set()


async def test_only_what_changed_is_told() -> None:
    client = FakeClient()
    await client.create(service(ip="None"))
    await client.create(slice_of(endpoint("10.244.1.2", "one")))
    async with following(client) as names:
        names.take()
        slice_ = await client.get(ENDPOINT_SLICE, "web-1", "default")
        slice_["endpoints"].append(endpoint("10.244.1.3", "two"))
        await client.update(slice_)
        touched = await taken(names)
        assert {record.data for record in touched if record.type == "A"} == {"10.244.1.3"}
        assert all("two" in str(record) or "10.244.1.3" in str(record) for record in touched)


async def test_a_deleted_service_takes_its_records_along() -> None:
    client = FakeClient()
    await client.create(service())
    async with following(client) as names:
        names.take()
        await client.delete(SERVICE, "web", "default")
        assert WEB in await taken(names)
        assert set(names.records) == zone_records("cluster.local", "10.96.0.10")


async def test_a_name_that_two_pods_have_stays_until_both_are_gone() -> None:
    """Pods on the network of one node."""
    client = FakeClient()
    for name in ("one", "two"):
        made = pod("10.244.1.2", name)
        await client.create(made)
        await client.patch(POD, name, {"status": made["status"]}, "default", subresource="status")
    async with following(client) as names:
        assert POD_NAME in names.take()
        await client.delete(POD, "one", "default")
        await client.create(service())
        assert POD_NAME not in await taken(names)
        assert POD_NAME in names.records
        await client.delete(POD, "two", "default")
        assert await taken(names) == {POD_NAME}
        assert POD_NAME not in names.records
