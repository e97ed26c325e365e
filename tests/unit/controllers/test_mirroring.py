"""Endpoints written by hand become slices, and nothing else does (EPS-03)."""

from collections.abc import Sequence
from typing import Any

import pytest

from testbed.api.kinds import ENDPOINT_SLICE, ENDPOINTS, EVENT, SERVICE
from testbed.api.objects import Object, controller_of, labels, metadata, name, uid
from testbed.api.wellknown import MANAGED_BY_LABEL, SERVICE_NAME_LABEL, SKIP_MIRROR_LABEL
from testbed.client.protocol import Client
from testbed.controllers.mirroring import LEADER_ANNOTATION, MANAGED_BY, addresses_skipped, mirrors
from tests.unit.controllers.harness import controlled, eventually, service, slices_of, vanished

HTTP = [{"name": "http", "port": 8080, "protocol": "TCP"}]


def endpoints(*subsets: dict[str, Any], **meta: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "web", "namespace": "default", **meta},
        "subsets": list(subsets),
    }


def subset(*addresses: str, ports: Sequence[dict[str, Any]] = HTTP, **others: Any) -> dict[str, Any]:
    return {"addresses": [{"ip": ip} for ip in addresses], "ports": list(ports), **others}


def by_hand() -> Object:
    """A Service whose endpoints are somebody else's matter."""
    made = service()
    del made["spec"]["selector"]
    return made


async def told(client: Client) -> set[tuple[str, bool, int]]:
    """Address, readiness and port of everything in the Service's slices."""
    return {
        (address, endpoint["conditions"]["ready"], port["port"])
        for slice_ in await slices_of(client, "web")
        for endpoint in slice_["endpoints"]
        for address in endpoint["addresses"]
        for port in slice_["ports"]
    }


async def become(client: Client, wanted: set[tuple[str, bool, int]]) -> None:
    async def check() -> bool:
        return await told(client) == wanted

    await eventually(check, f"the slices say {wanted}")


async def test_endpoints_are_mirrored_when_they_come_change_and_go(client: Client) -> None:
    async with controlled(client):
        await client.create(by_hand())
        made = await client.create(endpoints(subset("192.0.2.1", "192.0.2.2"), labels={"team": "red"}))
        await become(client, {("192.0.2.1", True, 8080), ("192.0.2.2", True, 8080)})
        [slice_] = await slices_of(client, "web")
        assert labels(slice_) == {"team": "red", SERVICE_NAME_LABEL: "web", MANAGED_BY_LABEL: MANAGED_BY}
        assert (controller_of(slice_)["kind"], controller_of(slice_)["uid"]) == ("Endpoints", uid(made))
        changed = [subset("192.0.2.3", notReadyAddresses=[{"ip": "192.0.2.1"}])]
        await client.patch(ENDPOINTS, "web", {"subsets": changed}, "default")
        await become(client, {("192.0.2.3", True, 8080), ("192.0.2.1", False, 8080)})
        assert [name(each) for each in await slices_of(client, "web")] == [name(slice_)]
        await client.delete(ENDPOINTS, "web", "default")
        await vanished(client, ENDPOINT_SLICE)


async def test_every_set_of_ports_has_a_slice(client: Client) -> None:
    async with controlled(client):
        await client.create(endpoints(subset("192.0.2.1"), subset("192.0.2.2", ports=[{**HTTP[0], "port": 81}])))
        await client.create(by_hand())
        await become(client, {("192.0.2.1", True, 8080), ("192.0.2.2", True, 81)})
        assert len(await slices_of(client, "web")) == 2
        await client.patch(ENDPOINTS, "web", {"subsets": [subset("192.0.2.1")]}, "default")
        await become(client, {("192.0.2.1", True, 8080)})
        assert len(await slices_of(client, "web")) == 1


async def test_a_selector_ends_the_mirroring(client: Client) -> None:
    async with controlled(client):
        await client.create(by_hand())
        await client.create(endpoints(subset("192.0.2.1")))
        await become(client, {("192.0.2.1", True, 8080)})
        await client.patch(SERVICE, "web", {"spec": {"selector": {"app": "web"}}}, "default")

        async def check() -> bool:
            return [labels(each)[MANAGED_BY_LABEL] for each in await slices_of(client, "web")] == [
                "endpointslice-controller.k8s.io"
            ]

        await eventually(check, "only the other controller's slice is left")


@pytest.mark.parametrize(
    "meta", [{"labels": {SKIP_MIRROR_LABEL: "true"}}, {"annotations": {LEADER_ANNOTATION: "{}"}}], ids=["label", "lock"]
)
async def test_what_asks_not_to_be_mirrored_is_not(client: Client, meta: dict[str, Any]) -> None:
    async with controlled(client):
        await client.create(by_hand())
        await client.create(endpoints(subset("192.0.2.1")))
        await become(client, {("192.0.2.1", True, 8080)})
        await client.patch(ENDPOINTS, "web", {"metadata": meta}, "default")
        await vanished(client, ENDPOINT_SLICE)


async def test_a_mirror_that_somebody_bent_is_set_right(client: Client) -> None:
    async with controlled(client):
        await client.create(by_hand())
        await client.create(endpoints(subset("192.0.2.1")))
        await become(client, {("192.0.2.1", True, 8080)})
        [slice_] = await slices_of(client, "web")
        await client.patch(ENDPOINT_SLICE, name(slice_), {"endpoints": []}, "default")
        await become(client, {("192.0.2.1", True, 8080)})
        await client.delete(ENDPOINT_SLICE, name(slice_), "default")
        await become(client, {("192.0.2.1", True, 8080)})


async def test_too_many_addresses_are_told(client: Client) -> None:
    async with controlled(client):
        await client.create(by_hand())
        await client.create(endpoints(subset(*(f"10.1.{n >> 8}.{n & 255}" for n in range(1, 1003)))))

        async def check() -> bool:
            return "TooManyAddressesToMirror" in {event["reason"] for event in (await client.list(EVENT)).items}

        await eventually(check, "an Event tells of it")
        [slice_] = await slices_of(client, "web")
        assert len(slice_["endpoints"]) == 1000


def test_what_an_endpoint_is_comes_along_and_what_the_object_says_of_itself_does_not() -> None:
    address = {"ip": "192.0.2.1", "hostname": "db-0", "nodeName": "a", "targetRef": {"kind": "Pod", "name": "p"}}
    notes = {"team": "red", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    source = endpoints({"addresses": [address], "ports": HTTP}, uid="u", annotations=notes)
    [slice_] = mirrors(source, [])
    assert slice_["endpoints"] == [
        {"addresses": ["192.0.2.1"], "conditions": {"ready": True}, "hostname": "db-0", "nodeName": "a",
         "targetRef": {"kind": "Pod", "name": "p"}}
    ]  # fmt: skip
    assert metadata(slice_)["annotations"] == {"team": "red"}
    assert slice_["ports"] == HTTP


def test_nothing_to_say_is_no_slice_and_nothing_skipped() -> None:
    assert mirrors(endpoints(uid="u"), []) == []
    assert addresses_skipped(endpoints(subset("192.0.2.1"))) == 0
