"""Pods from binding to removal: a real agent's loops over an API, a runtime and a kernel in memory."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from testbed.api.kinds import CONFIG_MAP, POD, Kind
from testbed.api.objects import Key, is_ready, name, status, uid
from testbed.api.wellknown import SERVICE_ACCOUNT_PATH
from testbed.errors import NotFound, ServiceUnavailable
from testbed.waiting import wait_until_async
from tests.unit.agent.host import SOON_S, Host, container_status
from tests.unit.agent.specs import pod


async def test_a_bound_pod_gets_an_address_a_link_and_its_containers(host: Host) -> None:
    async with host.agent():
        ready = await host.create(pod())

        async def told() -> bool:
            return "Started" in await host.events()

        await wait_until_async(told, SOON_S, "the event Started")
    assert status(ready)["podIP"] == "10.244.1.2"
    assert status(ready)["hostIP"] == "198.18.0.11"
    assert status(ready)["phase"] == "Running"
    at_node = host.switch.enter(host.directory / "a")
    assert f"veth{uid(ready)[:8]}" in {link.name for link in at_node.links()}


async def test_pods_of_other_hosts_are_left_alone(host: Host) -> None:
    async with host.agent():
        await host.client.create(pod("elsewhere", on="far"))
        await host.create(pod("here"))
    assert {spec.pod_uid for spec in host.sandboxes.specs.values()} == {uid(await host.get(pod("here")))}


async def test_a_host_network_pod_is_in_its_nodes_namespace_without_a_sandbox(host: Host) -> None:
    async with host.agent():
        ready = await host.create(pod(on="client", hostNetwork=True))
    (started,) = host.sandboxes.specs.values()
    assert (started.netns, started.node) == (host.directory / "client", "client")
    assert status(ready)["podIP"] == "203.0.113.19"
    assert host.sandboxes.pods() == []


async def test_a_container_is_told_what_the_manifest_says(host: Host) -> None:
    container = {
        "command": ["serve", "$(POD)"],
        "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "image": "nginx",
        "securityContext": {"capabilities": {"add": ["CAP_NET_ADMIN"]}},
    }
    async with host.agent():
        ready = await host.create(pod(container=container))
    (started,) = host.sandboxes.specs.values()
    assert (started.command, started.image) == (["serve", "10.244.1.2"], "testbed/web")
    assert started.capabilities == ["NET_ADMIN"]
    assert container_status(ready)["image"] == "nginx"


@pytest.mark.parametrize("host_network", [False, True])
async def test_a_pod_with_a_service_account_finds_its_way_to_the_api(host: Host, *, host_network: bool) -> None:
    async with host.agent():
        await host.create(pod(serviceAccountName="dns", hostNetwork=host_network))
    (started,) = host.sandboxes.specs.values()
    (mount,) = [mount for mount in started.mounts if mount.path == SERVICE_ACCOUNT_PATH]
    assert {file.name: file.read_text() for file in mount.source.iterdir()} == {
        "token": "secret", "ca.crt": "-----BEGIN CERTIFICATE-----", "namespace": "default",
    }  # fmt: skip
    assert mount.read_only


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"serviceAccountName": "dns", "automountServiceAccountToken": False},
        {
            "serviceAccountName": "dns",
            "container": {"volumeMounts": [{"name": "own", "mountPath": f"{SERVICE_ACCOUNT_PATH}/"}]},
        },
    ],
    ids=["unnamed", "not-mounted", "own-volume"],
)
async def test_a_pod_gets_no_token_unasked(host: Host, fields: dict[str, Any]) -> None:
    async with host.agent():
        await host.create(pod(volumes=[{"name": "own", "emptyDir": {}}], **fields))
    (started,) = host.sandboxes.specs.values()
    assert not [mount for mount in started.mounts if mount.path == SERVICE_ACCOUNT_PATH]


async def test_a_container_that_ends_is_restarted_and_the_pod_keeps_its_address(host: Host) -> None:
    async with host.agent():
        ready = await host.create(pod())
        host.sandboxes.end(container_status(ready)["containerID"].removeprefix("netns://"), 3)
        again = await host.until(ready, lambda obj: container_status(obj)["restartCount"] == 1, "a restart")
    assert status(again)["podIP"] == status(ready)["podIP"]
    assert container_status(again)["lastState"]["terminated"]["exitCode"] == 3
    assert is_ready(again)


async def test_a_container_that_ends_again_at_once_has_to_wait(host: Host) -> None:
    async with host.agent():
        ready = await host.create(pod())
        host.sandboxes.end(f"{uid(ready)}-main-0", 1)
        await host.until(ready, lambda obj: container_status(obj)["restartCount"] == 1, "a restart")
        host.sandboxes.end(f"{uid(ready)}-main-1", 1)
        waits = await host.until(ready, lambda obj: "waiting" in container_status(obj)["state"], "a back-off")
        assert container_status(waits)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        await host.until(ready, lambda obj: container_status(obj)["restartCount"] == 2, "another restart")


async def test_a_pod_that_never_restarts_succeeds_or_fails(host: Host) -> None:
    async with host.agent():
        for exit_code, phase in ((0, "Succeeded"), (1, "Failed")):
            ready = await host.create(pod(phase.lower(), restartPolicy="Never"))
            host.sandboxes.end(f"{uid(ready)}-main-0", exit_code)
            ended = await host.until(ready, lambda obj, want=phase: status(obj)["phase"] == want, phase)  # type: ignore[misc]
            assert container_status(ended)["state"]["terminated"]["exitCode"] == exit_code


async def test_an_image_that_cannot_be_had_is_told_and_tried_again_when_the_pod_changes(host: Host) -> None:
    async with host.agent():
        created = await host.client.create(pod(container={"image": "redis:7"}))
        waits = await host.until(created, lambda obj: status(obj).get("containerStatuses"), "a status")
        assert container_status(waits)["state"]["waiting"]["reason"] == "ErrImagePull"
        container = {"name": "main", "image": "testbed/web"}
        await host.client.patch(POD, name(created), {"spec": {"containers": [container]}}, "default")
        await host.until(created, is_ready, "readiness with another image")
    assert "Failed" in await host.events()


async def test_a_config_map_that_comes_later_lets_the_container_start(host: Host) -> None:
    reference = {"configMapKeyRef": {"name": "settings", "key": "colour"}}
    async with host.agent():
        created = await host.client.create(pod(container={"env": [{"name": "C", "valueFrom": reference}]}))
        waits = await host.until(created, lambda obj: status(obj).get("containerStatuses"), "a status")
        assert container_status(waits)["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        meta = {"name": "settings", "namespace": "default"}
        await host.client.create(
            {"apiVersion": "v1", "kind": CONFIG_MAP.kind, "metadata": meta, "data": {"colour": "red"}}
        )
        await host.until(created, is_ready, "readiness with the ConfigMap")
    (started,) = host.sandboxes.specs.values()
    assert started.env["C"] == "red"


async def test_a_pod_without_a_pod_network_where_there_is_none_is_told_once(host: Host) -> None:
    async with host.agent():
        await host.client.create(pod(on="client"))

        async def told() -> bool:
            return "FailedSync" in await host.events()

        await wait_until_async(told, SOON_S, "an Event")
        await host.create(pod("other"))
    assert (await host.events()).count("FailedSync") == 1


async def test_a_deleted_pod_is_stopped_removed_and_let_go(host: Host) -> None:
    async with host.agent():
        ready = await host.create(pod())
        await host.client.delete(POD, name(ready), "default", grace_period_s=5)
        await host.until_gone(ready)
        assert host.sandboxes.pods() == []
        assert host.sandboxes.containers() == []
        assert list((host.directory / "state/pods").iterdir()) == []
        assert f"veth{uid(ready)[:8]}" not in {link.name for link in host.switch.enter(host.directory / "a").links()}


async def test_a_pod_that_is_made_again_under_its_name_is_another_pod(host: Host) -> None:
    async with host.agent():
        first = await host.create(pod())
        await host.client.delete(POD, name(first), "default", grace_period_s=0)
        await host.until_gone(first)
        second = await host.create(pod())
        assert uid(second) != uid(first)
        assert status(second)["podIP"] == "10.244.1.3"


async def test_an_agent_that_starts_anew_takes_over_what_runs_and_changes_nothing(host: Host) -> None:
    async with host.agent():
        before = [await host.create(pod(f"web-{number}")) for number in range(3)]
    async with host.agent():
        await host.create(pod("new"))
        after = [await host.get(obj) for obj in before]
    assert after == before
    assert status(await host.get(pod("new")))["podIP"] == "10.244.1.5"
    assert len(host.sandboxes.specs) == 4


async def test_an_agent_gives_out_no_address_before_it_knows_which_are_held(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with host.agent():
        before = [await host.create(pod(f"web-{number}")) for number in range(3)]
    may_look, look = threading.Event(), host.sandboxes.pods
    monkeypatch.setattr(host.sandboxes, "pods", lambda: look() if may_look.wait(SOON_S) else [])
    async with host.agent() as pods:
        await host.client.create(pod("new"))

        async def seen() -> bool:
            return Key("default", "new") in pods.objects.items

        await wait_until_async(seen, SOON_S, "a look at the API")
        pods.follow(host.spec, {"a"})
        assert host.sandboxes.specs.keys() == {f"{uid(obj)}-main-0" for obj in before}
        may_look.set()
        ready = await host.until(pod("new"), is_ready, "readiness")
    assert status(ready)["podIP"] == "10.244.1.5"


async def test_an_agent_that_starts_anew_removes_pods_that_were_deleted_meanwhile(host: Host) -> None:
    async with host.agent():
        ready = await host.create(pod())
    await host.client.delete(POD, name(ready), "default", grace_period_s=0)
    async with host.agent():

        async def gone() -> bool:
            return not host.sandboxes.pods() and not host.sandboxes.containers()

        await wait_until_async(gone, SOON_S, "the removal of an orphan")


async def test_a_pod_is_ready_when_its_probe_succeeds_and_stays_so_for_an_agent_that_starts_anew(host: Host) -> None:
    healthy = asyncio.Event()
    host.sandboxes.execute = lambda _id, _argv: (0 if healthy.is_set() else 1, b"")
    probe = {"exec": {"command": ["check"]}, "periodSeconds": 1000}
    async with host.agent():
        created = await host.client.create(pod(container={"readinessProbe": probe}))
        running = await host.until(created, lambda obj: status(obj).get("phase") == "Running", "a start")
        assert not is_ready(running)
        healthy.set()
        ready = await host.until(created, is_ready, "readiness")
    healthy.clear()
    async with host.agent():
        await host.create(pod("other"))
        assert await host.get(ready) == ready


async def test_a_containers_log_is_found_by_the_pods_name(host: Host) -> None:
    async with host.agent() as pods:
        ready = await host.create(pod())
        assert pods.find(Key("default", "web"), "main").id == f"{uid(ready)}-main-0"
        with pytest.raises(NotFound, match="has not been started"):
            pods.find(Key("default", "web"), "main", previous=True)


async def test_a_pod_of_the_same_name_is_not_told_what_became_of_the_former_one(host: Host) -> None:
    is_deaf, told = False, list[Key]()

    def intercept(verb: str, kind: Kind, which: Key) -> None:
        if is_deaf and kind == POD:
            if verb in ("watch", "list"):
                raise ServiceUnavailable("the API server restarts")
            if verb == "patch":
                told.append(which)

    host.client.intercept = intercept
    async with host.agent():
        former = await host.create(pod())
        is_deaf = True
        host.client.disconnect()
        await host.client.delete(POD, name(former), "default", grace_period_s=0)
        await host.client.create(pod(on="far"))
        host.sandboxes.end(f"{uid(former)}-main-0", 1)

        async def has_told() -> bool:
            return bool(told)

        await wait_until_async(has_told, SOON_S, "an attempt to tell of the former pod")
    assert "podIP" not in status(await host.get(former))
