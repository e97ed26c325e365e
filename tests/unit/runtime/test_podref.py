from __future__ import annotations

import pytest

from testbed.api.kinds import POD
from testbed.api.objects import Key, Object
from testbed.client.fake import FakeClient
from testbed.errors import BadInput
from testbed.runtime.podref import find_pod, node_pod

READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


async def cluster() -> FakeClient:
    client = FakeClient()
    for name, namespace in (("web-1", "default"), ("web-2", "default"), ("dns", "kube-system")):
        await client.create(pod(name, namespace))
    for name in ("web-1", "web-2"):
        await client.patch(POD, name, {"status": READY}, "default", subresource="status")
    deployment = {"selector": {"matchLabels": {"app": "web"}}}
    meta = {"name": "web", "namespace": "default"}
    await client.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": deployment})
    await client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}})
    return client


def pod(name: str, namespace: str) -> Object:
    app = name.partition("-")[0]
    meta = {"name": name, "namespace": namespace, "labels": {"app": app}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("web-2", Key("default", "web-2")),
        ("pod/web-2", Key("default", "web-2")),
        ("kube-system/dns", Key("kube-system", "dns")),
        ("deployment/web", Key("default", "web-1")),
    ],
)
async def test_a_pod_is_found_by_what_one_would_type(typed: str, meant: Key) -> None:
    assert await find_pod(await cluster(), typed, "default") == meant


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("web", "there is no pod web in namespace default; there is web-1, web-2"),
        ("wbe-1", "there is no pod wbe-1 in namespace default; there is web-1"),
        ("nowhere/web-1", "there is no pod web-1 in namespace nowhere; there is none at all"),
        ("deployment/wob", "there is no deployment wob in namespace default"),
        ("node/b", "there is no node b; there is a"),
    ],
)
async def test_what_is_not_there_is_told_with_what_there_is(typed: str, told: str) -> None:
    with pytest.raises(BadInput) as raised:
        await find_pod(await cluster(), typed, "default")
    assert str(raised.value).startswith(told)


async def test_a_node_is_looked_at_through_a_pod_on_its_own_network_made_once() -> None:
    client = await cluster()
    made = await client.create(node_pod("a"))
    await client.patch(POD, "node-a", {"status": {"phase": "Running"}}, "kube-system", subresource="status")
    assert await find_pod(client, "node/a", "default") == Key("kube-system", "node-a")
    assert made["spec"]["hostNetwork"]
    assert made["spec"]["nodeName"] == "a"
