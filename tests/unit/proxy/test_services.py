"""Virtual ports followed through a cluster in memory."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from testbed.api.kinds import ENDPOINT_SLICE, SERVICE
from testbed.api.objects import Key, resource_version
from testbed.client.fake import FakeClient
from testbed.client.informer import Informer
from testbed.proxy.services import Services
from testbed.waiting import wait_until_async
from tests.unit.proxy.objects import endpoint, service, slice_of

WEB = Key("default", "web")


@dataclass
class Followed:
    client: FakeClient
    services: Services

    async def endpoints(self, *wanted: str) -> None:
        """Wait until these are the endpoints of the Service, in their slots."""

        async def check() -> bool:
            ports = self.services.snapshot().ports.get(WEB, ())
            return [str(each.address) for port in ports for each in port.endpoints] == list(wanted)

        await wait_until_async(check, 2, f"endpoints {wanted}")


@pytest.fixture
async def followed() -> AsyncIterator[Followed]:
    client = FakeClient()
    informers = Informer(client, SERVICE), Informer(client, ENDPOINT_SLICE)
    services = Services(*informers)
    tasks = [asyncio.create_task(informer.run()) for informer in informers]
    for informer in informers:
        await informer.synced.wait()
    yield Followed(client, services)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_endpoints_follow_the_slices_whichever_comes_first(followed: Followed) -> None:
    await followed.client.create(slice_of([endpoint("10.244.1.2")]))
    await followed.endpoints()
    await followed.client.create(service())
    await followed.endpoints("10.244.1.2")
    await followed.client.create(slice_of([endpoint("10.244.1.3")], name="web-2"))
    await followed.endpoints("10.244.1.2", "10.244.1.3")
    await followed.client.delete(ENDPOINT_SLICE, "web-1", "default")
    await followed.endpoints("10.244.1.3")
    await followed.client.delete(SERVICE, "web", "default")
    await followed.endpoints()


async def test_an_endpoint_that_stays_keeps_its_slot(followed: Followed) -> None:
    await followed.client.create(service())
    await followed.client.create(slice_of([endpoint(f"10.244.1.{at}") for at in (5, 6, 7)]))
    await followed.endpoints("10.244.1.5", "10.244.1.6", "10.244.1.7")
    await followed.client.update(slice_of([endpoint(f"10.244.1.{at}") for at in (6, 7)]))
    await followed.endpoints("10.244.1.7", "10.244.1.6")
    await followed.client.update(slice_of([endpoint(f"10.244.1.{at}") for at in (2, 6, 7)]))
    await followed.endpoints("10.244.1.7", "10.244.1.6", "10.244.1.2")


async def test_an_unchanged_service_is_the_same_object_in_the_next_snapshot(followed: Followed) -> None:
    await followed.client.create(service())
    await followed.client.create(slice_of([endpoint("10.244.1.2")]))
    await followed.endpoints("10.244.1.2")
    before = followed.services.snapshot()
    newest = await followed.client.create(service("other", clusterIP="10.96.0.11"))

    async def check() -> bool:
        return followed.services.snapshot().version >= resource_version(newest)

    await wait_until_async(check, 2, "the other Service")
    after = followed.services.snapshot()
    assert after.ports[WEB] is before.ports[WEB]
    assert Key("default", "other") not in before.ports
