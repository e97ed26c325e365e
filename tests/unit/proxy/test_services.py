"""Virtual ports followed through a cluster in memory."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from testbed.api.kinds import ENDPOINT_SLICE, SERVICE
from testbed.api.objects import Key, resource_version
from testbed.client.fake import FakeClient
from testbed.client.informer import Informer
from testbed.proxy.servicemap import Location
from testbed.proxy.services import History, Services, Snapshot
from testbed.proxy.virtualport import HealthCheck
from testbed.waiting import wait_until_async
from tests.unit.proxy.objects import endpoint, service, slice_of

WEB = Key("default", "web")
A, B = Location("a", "z1"), Location("b", "z2")


@dataclass
class Followed:
    client: FakeClient
    services: Services
    informers: tuple[Informer, Informer]

    async def until(self, version: int, here: Location = A, since: int = 0) -> Snapshot:
        """The first snapshot that accounts for this version."""

        async def check() -> bool:
            return max(self.informed()) >= version

        await wait_until_async(check, 2, f"version {version}")
        return self.services.snapshot(here, since)

    def informed(self) -> tuple[int, ...]:
        return tuple(informer.resource_version for informer in self.informers)

    async def endpoints(self, *wanted: str) -> None:
        """Wait until these are the endpoints of the Service, in their slots."""

        async def check() -> bool:
            ports = self.services.snapshot(A).ports.get(WEB, ())
            return [str(each.address) for port in ports for each in port.cluster] == list(wanted)

        await wait_until_async(check, 2, f"endpoints {wanted}")


@pytest.fixture
async def followed() -> AsyncIterator[Followed]:
    client = FakeClient()
    informers = Informer(client, SERVICE), Informer(client, ENDPOINT_SLICE)
    services = Services(*informers)
    tasks = [asyncio.create_task(informer.run()) for informer in informers]
    for informer in informers:
        await informer.synced.wait()
    yield Followed(client, services, informers)
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


async def test_a_snapshot_tells_what_changed_since_an_earlier_one_and_shares_the_rest(followed: Followed) -> None:
    await followed.client.create(service())
    before = await followed.until(resource_version(await followed.client.create(slice_of([endpoint("10.244.1.2")]))))
    newest = await followed.client.create(service("other", clusterIP="10.96.0.11"))
    after = await followed.until(resource_version(newest), since=before.sequence)
    assert before.changed is None
    assert after.changed == frozenset({Key("default", "other")})
    assert after.ports[WEB] is before.ports[WEB]
    assert Key("default", "other") not in before.ports
    again = followed.services.snapshot(A, after.sequence)
    assert again.changed == frozenset()


async def test_each_node_gets_its_own_choice_of_a_local_service_and_shares_all_others(followed: Followed) -> None:
    await followed.client.create(service("other", clusterIP="10.96.0.11"))
    await followed.client.create(service(internalTrafficPolicy="Local"))
    endpoints = [endpoint("10.244.1.2", node="a"), endpoint("10.244.2.2", node="b")]
    newest = resource_version(await followed.client.create(slice_of(endpoints)))
    at_a, at_b = await followed.until(newest, A), await followed.until(newest, B)
    other = Key("default", "other")
    assert [str(each.address) for each in at_a.ports[WEB][0].local] == ["10.244.1.2"]
    assert [str(each.address) for each in at_b.ports[WEB][0].local] == ["10.244.2.2"]
    assert at_a.ports[other] is at_b.ports[other]


async def test_a_service_that_becomes_local_and_back_is_a_change_on_every_node(followed: Followed) -> None:
    await followed.client.create(slice_of([endpoint("10.244.2.2", node="b")]))
    first = await followed.until(resource_version(await followed.client.create(service())))
    held = await followed.client.get(SERVICE, "web", "default")
    held = await followed.client.update({**held, "spec": {**held["spec"], "internalTrafficPolicy": "Local"}})
    second = await followed.until(resource_version(held), since=first.sequence)
    held = await followed.client.update({**held, "spec": {**held["spec"], "internalTrafficPolicy": "Cluster"}})
    third = await followed.until(resource_version(held), since=second.sequence)
    assert [each.changed for each in (second, third)] == [frozenset({WEB})] * 2
    assert [len(each.ports[WEB][0].internal) for each in (first, second, third)] == [1, 0, 1]


async def test_a_node_that_moves_to_another_zone_chooses_anew(followed: Followed) -> None:
    await followed.client.create(service())
    endpoints = [endpoint("10.244.1.2", zones=["z1"]), endpoint("10.244.2.2", zones=["z2"])]
    newest = resource_version(await followed.client.create(slice_of(endpoints)))
    here = await followed.until(newest, A)
    there = followed.services.snapshot(Location("a", "z2"), here.sequence)
    assert there.changed is None
    assert [str(each.address) for each in there.ports[WEB][0].cluster] == ["10.244.2.2"]


async def test_health_checks_come_and_go_with_their_service(followed: Followed) -> None:
    local = service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=31000)
    await followed.client.create(slice_of([endpoint("10.244.1.2", node="a")]))
    made = await followed.until(resource_version(await followed.client.create(local)))
    assert made.health_checks == {WEB: HealthCheck(31000, 1)}
    await followed.client.delete(SERVICE, "web", "default")
    await followed.endpoints()
    assert followed.services.snapshot(A).health_checks == {}


def test_services_that_are_long_gone_are_forgotten_and_whoever_asks_since_then_is_told_to_look_at_all() -> None:
    history = History()
    for number in range(3000):
        history.note(Key("default", str(number)), is_gone=True)
    assert history.since(1) is None
    assert history.since(2998) == frozenset({Key("default", "2998"), Key("default", "2999")})
    assert len(history) < 2500
