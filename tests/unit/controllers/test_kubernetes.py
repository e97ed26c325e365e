"""`default/kubernetes` comes back, whatever becomes of it."""

import pytest

from testbed.api.kinds import ENDPOINT_SLICE, ENDPOINTS, SERVICE, Kind
from testbed.api.objects import Object, labels, spec, uid
from testbed.api.wellknown import SERVICE_NAME_LABEL
from testbed.client.protocol import Client
from testbed.errors import NotFound
from tests.unit.apiserver.parts import SPEC
from tests.unit.controllers.harness import controlled, eventually
from tests.unit.controllers.test_loadbalancers import settings


async def held(client: Client, kind: Kind) -> Object | None:
    try:
        return await client.get(kind, "kubernetes", "default")
    except NotFound:
        return None


async def there(client: Client, kind: Kind) -> Object:
    return await eventually(lambda: held(client, kind), f"there is a {kind.kind}")


@pytest.mark.parametrize("kind", [SERVICE, ENDPOINTS, ENDPOINT_SLICE], ids=lambda kind: kind.kind)
async def test_what_is_deleted_comes_back(client: Client, kind: Kind) -> None:
    await client.create(settings(None))
    async with controlled(client):
        before = await there(client, kind)
        await client.delete(kind, "kubernetes", "default")

        async def check() -> bool:
            found = await held(client, kind)
            return found is not None and uid(found) != uid(before)

        await eventually(check, "it is there again")
    assert spec(await there(client, SERVICE))["clusterIP"] == str(SPEC.services.kubernetes)


async def test_what_is_bent_is_set_right(client: Client) -> None:
    await client.create(settings(None))
    async with controlled(client):
        for kind in (SERVICE, ENDPOINTS, ENDPOINT_SLICE):
            await there(client, kind)
        bent = {"metadata": {"labels": {SERVICE_NAME_LABEL: "other", "mine": "x"}}, "endpoints": []}
        await client.patch(ENDPOINT_SLICE, "kubernetes", bent, "default")
        await client.patch(ENDPOINTS, "kubernetes", {"subsets": []}, "default")
        await client.patch(SERVICE, "kubernetes", {"spec": {"ports": [{"port": 1}]}}, "default")

        async def check() -> bool:
            service, endpoints, slice_ = [await there(client, kind) for kind in (SERVICE, ENDPOINTS, ENDPOINT_SLICE)]
            return bool(
                spec(service)["ports"][0]["port"] == 443
                and endpoints["subsets"]
                and slice_["endpoints"]
                and labels(slice_)[SERVICE_NAME_LABEL] == "kubernetes"
                and labels(slice_)["mine"] == "x"
            )

        await eventually(check, "all three are right again")


async def test_nothing_is_mirrored_of_it(client: Client) -> None:
    await client.create(settings(None))
    async with controlled(client):
        await there(client, ENDPOINTS)
        await there(client, ENDPOINT_SLICE)
        slices = (await client.list(ENDPOINT_SLICE, "default")).items
        assert [slice_["metadata"]["name"] for slice_ in slices] == ["kubernetes"]
