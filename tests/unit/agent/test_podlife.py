"""Probes, hooks, init containers and ends: an agent's loops over an API and a runtime in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from testbed.agent.events import Events
from testbed.agent.podcontainers import PodContainers
from testbed.agent.podrun import CannotStart
from testbed.api.kinds import POD, Kind
from testbed.api.objects import Key, Object, is_deleting, is_ready, name, status, uid
from testbed.client.fake import FakeClient
from testbed.errors import ServiceUnavailable
from testbed.waiting import wait_until_async
from tests.unit.agent.host import SOON_S, Host, container_status
from tests.unit.agent.specs import pod

if TYPE_CHECKING:
    from testbed.agent.podhost import PodHost

NEVER = {"periodSeconds": 1000}


class Program:
    """What programs run in containers do: their exit code, told by name, and a gate that holds them up."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.ran: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, _: str, argv: Sequence[str]) -> tuple[int, bytes]:
        self.ran.append(argv[0])
        if argv[0] == "wait":
            self.gate.wait(SOON_S)
        return self.codes.get(argv[0], 0), b""


@pytest.fixture
def program(host: Host) -> Iterator[Program]:
    host.sandboxes.execute = program = Program()
    yield program
    program.gate.set()


def probe(command: str, **fields: Any) -> dict[str, Any]:
    return {"exec": {"command": [command]}, **fields}


def hooks(**handlers: str) -> dict[str, Any]:
    return {"lifecycle": {hook: {"exec": {"command": [command]}} for hook, command in handlers.items()}}


async def test_a_container_whose_liveness_probe_fails_is_restarted_with_the_probes_grace(
    host: Host, program: Program
) -> None:
    sick = probe("live", periodSeconds=1, failureThreshold=1, terminationGracePeriodSeconds=7)
    async with host.agent():
        ready = await host.create(pod(container={"livenessProbe": sick}))
        program.codes["live"] = 1
        again = await host.until(ready, lambda obj: container_status(obj)["restartCount"] == 1, "a restart")
    assert host.sandboxes.graces[f"{uid(ready)}-main-0"] == pytest.approx(7, abs=0.5)
    assert container_status(again)["lastState"]["terminated"]["exitCode"] == 143
    assert {"Unhealthy", "Killing"} <= set(await host.events())


async def test_a_container_whose_startup_probe_never_succeeds_is_restarted(host: Host, program: Program) -> None:
    program.codes["begun"] = 1
    async with host.agent():
        created = await host.client.create(
            pod(container={"startupProbe": probe("begun", periodSeconds=1, failureThreshold=1)})
        )
        await host.until(created, lambda obj: container_status(obj).get("restartCount") == 1, "a restart")


async def test_until_the_startup_probe_succeeds_the_others_are_not_asked(host: Host, program: Program) -> None:
    program.codes["begun"] = 1
    probes = {
        "startupProbe": probe("begun"),
        "livenessProbe": probe("live", **NEVER),
        "readinessProbe": probe("ready", **NEVER),
    }
    async with host.agent():
        created = await host.client.create(pod(container=probes))
        running = await host.until(created, lambda obj: status(obj).get("phase") == "Running", "a start")
        assert not container_status(running)["started"]
        assert set(program.ran) <= {"begun"}
        program.codes["begun"] = 0
        ready = await host.until(created, is_ready, "readiness")
        assert container_status(ready)["started"]
        assert "ready" in program.ran


async def test_a_pod_goes_on_serving_while_its_pre_stop_hook_is_at_work(host: Host, program: Program) -> None:
    program.gate.clear()
    async with host.agent():
        ready = await host.create(
            pod(container={"readinessProbe": probe("ready", periodSeconds=1)} | hooks(preStop="wait"))
        )
        await host.client.delete(POD, name(ready), "default", grace_period_s=30)
        await _until_ran(program, "wait")
        program.codes["ready"] = 1
        ending = await host.until(ready, lambda obj: not is_ready(obj), "unreadiness")
        assert is_deleting(ending)
        assert host.sandboxes.graces == {}
        program.gate.set()
        await host.until_gone(ready)
    assert 20 < host.sandboxes.graces[f"{uid(ready)}-main-0"] <= 30


async def test_a_hook_that_takes_all_of_the_grace_leaves_the_program_two_seconds(host: Host, program: Program) -> None:
    program.gate.clear()
    async with host.agent():
        ready = await host.create(pod(container=hooks(preStop="wait")))
        await host.client.delete(POD, name(ready), "default", grace_period_s=1)
        await host.until_gone(ready)
    assert host.sandboxes.graces[f"{uid(ready)}-main-0"] == pytest.approx(2, abs=0.1)
    assert "FailedPreStopHook" in await host.events()


async def test_a_second_deletion_with_less_grace_cuts_the_hook_short(host: Host, program: Program) -> None:
    program.gate.clear()
    async with host.agent():
        ready = await host.create(pod(container=hooks(preStop="wait")))
        await host.client.delete(POD, name(ready), "default", grace_period_s=30)
        await _until_ran(program, "wait")
        await host.client.delete(POD, name(ready), "default", grace_period_s=0)

        async def stopped() -> bool:
            return bool(host.sandboxes.graces)

        await wait_until_async(stopped, SOON_S, "the container's end")
    assert host.sandboxes.graces == {f"{uid(ready)}-main-0": 0}


async def test_an_agent_killed_amid_a_pre_stop_hook_comes_back_and_ends_the_pod_in_its_grace(
    host: Host, program: Program
) -> None:
    program.gate.clear()
    readiness = {"readinessProbe": probe("ready", **NEVER)}
    async with host.agent():
        ready = await host.create(pod(container=readiness | hooks(preStop="wait")))
        await host.client.delete(POD, name(ready), "default", grace_period_s=20)
        await _until_ran(program, "wait")
    assert host.sandboxes.graces == {}
    async with host.agent():
        await _until_ran(program, "wait", times=2)
        assert is_ready(await host.get(ready)), "who started anew has taken traffic away from it"
        program.gate.set()
        await host.until_gone(ready)
    assert 15 < host.sandboxes.graces[f"{uid(ready)}-main-0"] <= 20


async def test_an_agent_killed_amid_a_back_off_comes_back_and_waits_it_out(host: Host) -> None:
    async with host.agent():
        ready = await host.create(pod())
        host.sandboxes.end(f"{uid(ready)}-main-0", 1)
        await host.until(ready, lambda obj: container_status(obj)["restartCount"] == 1, "a restart")
    host.sandboxes.end(f"{uid(ready)}-main-1", 7)
    async with host.agent():
        waits = await host.until(ready, lambda obj: "waiting" in container_status(obj)["state"], "a back-off")
        told = container_status(waits)
        assert told["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        assert (told["restartCount"], told["lastState"]["terminated"]["exitCode"]) == (1, 7)
        await host.until(ready, lambda obj: container_status(obj)["restartCount"] == 2, "another restart")
    assert set(host.sandboxes.specs) == {f"{uid(ready)}-main-{attempt}" for attempt in range(3)}


async def test_a_container_runs_when_its_post_start_hook_is_over(host: Host, program: Program) -> None:
    program.gate.clear()
    async with host.agent():
        created = await host.client.create(pod(container=hooks(postStart="wait")))
        await _until_ran(program, "wait")
        waits = await host.until(created, lambda obj: status(obj).get("containerStatuses"), "a status")
        assert "waiting" in container_status(waits)["state"]
        assert status(waits)["phase"] == "Pending"
        program.gate.set()
        await host.until(created, is_ready, "readiness")
    async with host.agent():
        await host.create(pod("other"))
    assert program.ran == ["wait"], "a hook that was over has been run again"


async def test_a_container_whose_post_start_hook_fails_is_restarted(host: Host, program: Program) -> None:
    program.codes["begin"] = 1
    async with host.agent():
        created = await host.client.create(pod(container=hooks(postStart="begin")))
        await host.until(created, lambda obj: container_status(obj).get("restartCount") == 1, "a restart")
    assert "FailedPostStartHook" in await host.events()


async def test_init_containers_run_to_their_ends_in_order_before_the_containers(host: Host) -> None:
    init = [{"name": "first", "image": "testbed/web"}, {"name": "second", "image": "testbed/web"}]
    async with host.agent():
        created = await host.client.create(pod(initContainers=init))
        for number, which in enumerate(("first", "second")):
            await host.until(created, _runs_init(number), f"the start of {which}")
            assert f"{uid(created)}-main-0" not in host.sandboxes.specs
            host.sandboxes.end(f"{uid(created)}-{which}-0", 0)
        await host.until(created, is_ready, "readiness")
    assert [spec.name for spec in host.sandboxes.specs.values()] == ["first", "second", "main"]


async def test_a_sidecar_starts_first_and_ends_when_the_containers_have_done_their_work(host: Host) -> None:
    sidecar = {"name": "side", "image": "testbed/web", "restartPolicy": "Always"}
    async with host.agent():
        ready = await host.create(pod(initContainers=[sidecar], restartPolicy="Never"))
        host.sandboxes.end(f"{uid(ready)}-side-0", 1)
        await host.until(ready, lambda obj: status(obj)["initContainerStatuses"][0]["restartCount"] == 1, "its restart")
        host.sandboxes.end(f"{uid(ready)}-main-0", 0)
        await host.until(ready, lambda obj: status(obj)["phase"] == "Succeeded", "success")
    assert [spec.name for spec in host.sandboxes.specs.values()] == ["side", "main", "side"]


async def test_a_deleted_pods_sidecars_end_last(host: Host, program: Program) -> None:
    program.gate.clear()
    sidecar = {"name": "side", "image": "testbed/web", "restartPolicy": "Always"}
    async with host.agent():
        ready = await host.create(pod(initContainers=[sidecar], container=hooks(preStop="wait")))
        await host.client.delete(POD, name(ready), "default", grace_period_s=30)
        await _until_ran(program, "wait")
        assert host.sandboxes.graces == {}
        program.gate.set()
        await host.until_gone(ready)
    assert list(host.sandboxes.graces) == [f"{uid(ready)}-main-0", f"{uid(ready)}-side-0"]


async def test_an_end_goes_on_without_the_api_and_begins_no_hook_twice(host: Host, program: Program) -> None:
    program.gate.clear()
    failed: list[Key] = []
    is_away = False

    def intercept(verb: str, kind: Kind, which: Key) -> None:
        if is_away and (verb, kind) == ("patch", POD):
            failed.append(which)
            raise ServiceUnavailable("the API server restarts")

    host.client.intercept = intercept
    other = {"name": "other", "image": "testbed/web", **hooks(preStop="wait")}
    async with host.agent():
        ready = await host.create(pod(containers=[{"name": "main", "image": "testbed/web"}, other]))
        is_away = True
        await host.client.delete(POD, name(ready), "default", grace_period_s=30)

        async def has_failed() -> bool:
            return len(failed) >= 2

        await wait_until_async(has_failed, SOON_S, "a second attempt to tell of the end")
        is_away = False
        ended = await host.until(ready, lambda obj: "terminated" in container_status(obj)["state"], "the news")
        assert is_deleting(ended)
        program.gate.set()
        await host.until_gone(ready)
    assert program.ran == ["wait"]


async def test_however_often_a_container_is_found_waiting_it_is_looked_at_again_once() -> None:
    looks: list[float] = []
    events = Events(FakeClient())
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    shared = cast("PodHost", SimpleNamespace(events=events, probing=None, stop=None))
    containers = PodContainers(shared, lambda: looks.append(loop.time()))
    for _ in range(5):
        containers.cannot(pod(), "main", CannotStart("ErrImagePull", "no such image"), retry_s=0.01)
    loop.call_later(0.05, over.set)
    await over.wait()
    assert len(looks) == 1


async def _until_ran(program: Program, which: str, times: int = 1) -> None:
    async def ran() -> bool:
        return program.ran.count(which) >= times

    await wait_until_async(ran, SOON_S, f"a run of {which}")


def _runs_init(number: int) -> Any:
    def check(obj: Object) -> bool:
        told = status(obj).get("initContainerStatuses") or []
        return bool(told) and "running" in told[number]["state"]

    return check
