"""What a pod's status says about what runs."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.agent.podstatus import ContainerView, PodView, differs, phase, pod_status
from testbed.agent.sandbox import ContainerState
from testbed.api.objects import Object, condition
from tests.unit.agent.specs import pod

RUNNING, DONE, BROKEN = None, 0, 3


def attempt(exit_code: int | None, number: int = 0, reason: str = "") -> ContainerState:
    finished = "" if exit_code is None else "2026-01-01T00:00:09Z"
    return ContainerState(
        f"id-{number}", "uid", "main", "testbed/web", number, exit_code is None, 7, "2026-01-01T00:00:00Z", finished,
        exit_code, reason,
    )  # fmt: skip


def view(*attempts: ContainerState, name: str = "main", **fields: Any) -> ContainerView:
    is_running = bool(attempts) and attempts[-1].is_running
    container = {"name": name, "image": "web", **fields.pop("container", {})}
    return ContainerView(container, attempts, **{"has_begun": is_running, "is_started": is_running, **fields})


def pod_of(*views: ContainerView, init: int = 0, **fields: Any) -> Object:
    """A pod of these containers, of which the first ones are init containers."""
    containers = [dict(each.container) for each in views]
    return pod(**{"containers": containers[init:], **({"initContainers": containers[:init]} if init else {}), **fields})


def view_of(*containers: ContainerView, **fields: Any) -> PodView:
    return PodView("netns", "198.18.0.11", "10.244.1.2", "2026-01-01T00:00:00Z", containers, **fields)


def status_of(obj: Object, *containers: ContainerView) -> dict[str, Any]:
    return pod_status(obj, view_of(*containers))


@pytest.mark.parametrize(
    ("policy", "exit_code", "expected"),
    [
        ("Always", RUNNING, "Running"), ("Always", DONE, "Running"), ("Always", BROKEN, "Running"),
        ("OnFailure", DONE, "Succeeded"), ("OnFailure", BROKEN, "Running"),
        ("Never", RUNNING, "Running"), ("Never", DONE, "Succeeded"), ("Never", BROKEN, "Failed"),
    ],
)  # fmt: skip
def test_the_phase_follows_from_exit_code_and_restart_policy(policy: str, exit_code: int | None, expected: str) -> None:
    assert phase(pod(restartPolicy=policy), view_of(view(attempt(exit_code)))) == expected


def test_a_pod_is_pending_until_every_container_was_started() -> None:
    first, second = view(attempt(RUNNING)), view(name="other")
    assert phase(pod_of(first, second), view_of(first, second)) == "Pending"


def test_a_pod_is_pending_while_its_first_post_start_hook_is_at_work() -> None:
    assert phase(pod(), view_of(view(attempt(RUNNING), has_begun=False))) == "Pending"
    assert phase(pod(), view_of(view(attempt(DONE), attempt(RUNNING, 1), has_begun=False))) == "Running"
    (told,) = status_of(pod(), view(attempt(RUNNING), has_begun=False))["containerStatuses"]
    assert told["state"] == {"waiting": {"reason": "ContainerCreating"}}


def test_an_init_container_that_is_not_tried_again_fails_its_pod() -> None:
    init, app = view(attempt(BROKEN), name="init"), view()
    for policy, expected in (("Never", "Failed"), ("OnFailure", "Pending"), ("Always", "Pending")):
        obj = pod_of(init, app, init=1, restartPolicy=policy)
        assert phase(obj, view_of(init, app, is_initialized=False)) == expected


def test_containers_behind_an_init_container_say_that_they_wait_for_it() -> None:
    init, app = view(attempt(RUNNING), name="init"), view()
    obj = pod_of(init, app, init=1)
    said = pod_status(obj, view_of(init, app, is_initialized=False))
    assert said["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert "running" in said["initContainerStatuses"][0]["state"]
    told = condition({"status": said}, "Initialized")
    assert (told["status"], told["message"]) == ("False", "containers with incomplete status: [init]")


def test_an_init_container_that_has_done_its_work_is_ready() -> None:
    init, app = view(attempt(DONE), name="init"), view(attempt(RUNNING), is_ready=True)
    said = status_of(pod_of(init, app, init=1), init, app)
    assert said["initContainerStatuses"][0]["ready"]
    assert condition({"status": said}, "Ready")["status"] == "True"


def test_a_sidecar_counts_for_readiness_and_ends_last() -> None:
    sidecar = view(attempt(RUNNING), name="side", container={"restartPolicy": "Always"})
    app = view(attempt(RUNNING), is_ready=True)
    said = status_of(pod_of(sidecar, app, init=1), sidecar, app)
    assert condition({"status": said}, "Ready")["message"] == "containers with unready status: [side]"
    done = view(attempt(DONE))
    obj = pod_of(sidecar, done, init=1, restartPolicy="Never")
    assert phase(obj, view_of(sidecar, done)) == "Running"
    ended = view(attempt(BROKEN), name="side", container={"restartPolicy": "Always"})
    assert phase(obj, view_of(ended, done)) == "Succeeded"


def test_a_readiness_gate_is_somebody_elses_condition_which_is_kept() -> None:
    obj = pod(readinessGates=[{"conditionType": "lb"}])
    said = {"status": status_of(obj, view(attempt(RUNNING), is_ready=True))}
    assert condition(said, "ContainersReady")["status"] == "True"
    assert condition(said, "Ready")["reason"] == "ReadinessGatesNotReady"
    obj["status"] = {"conditions": [{"type": "lb", "status": "True"}]}
    said = {"status": status_of(obj, view(attempt(RUNNING), is_ready=True))}
    assert condition(said, "Ready")["status"] == condition(said, "lb")["status"] == "True"


def test_a_pod_is_ready_when_all_of_its_containers_are() -> None:
    ready, unready = view(attempt(RUNNING), is_ready=True), view(attempt(RUNNING), name="other")
    assert condition({"status": status_of(pod(), ready)}, "Ready")["status"] == "True"
    said = condition({"status": status_of(pod_of(ready, unready), ready, unready)}, "Ready")
    assert (said["status"], said["reason"]) == ("False", "ContainersNotReady")


def test_a_pod_that_has_done_its_work_is_not_ready() -> None:
    said = status_of(pod(restartPolicy="Never"), view(attempt(DONE)))
    assert condition({"status": said}, "Ready")["reason"] == "PodCompleted"


def test_a_condition_that_has_not_changed_keeps_its_time() -> None:
    obj = pod()
    before = "2020-01-01T00:00:00Z"
    obj["status"] = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": before}]}
    said = status_of(obj, view(attempt(RUNNING), is_ready=True))
    assert condition({"status": said}, "Ready")["lastTransitionTime"] == before
    assert condition({"status": said}, "ContainersReady")["lastTransitionTime"] > before


def test_a_status_that_was_written_is_not_written_again() -> None:
    obj = pod()
    obj["status"] = status_of(obj, view(attempt(RUNNING), is_ready=True)) | {"qosClass": "BestEffort"}
    assert not differs(obj["status"], status_of(obj, view(attempt(RUNNING), is_ready=True)))


def test_a_container_that_was_restarted_tells_how_it_ended_before() -> None:
    (told,) = status_of(pod(), view(attempt(BROKEN), attempt(RUNNING, 1), is_ready=True))["containerStatuses"]
    assert (told["restartCount"], told["containerID"]) == (1, "netns://id-1")
    assert told["lastState"]["terminated"]["exitCode"] == BROKEN
    assert "running" in told["state"]


def test_a_container_in_back_off_waits_and_tells_how_it_ended() -> None:
    (told,) = status_of(pod(), view(attempt(BROKEN, 2), waits_for="CrashLoopBackOff", message="why"))[
        "containerStatuses"
    ]
    assert told["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "why"}}
    assert told["lastState"]["terminated"]["exitCode"] == BROKEN


def test_a_program_that_could_not_be_started_says_so() -> None:
    (told,) = status_of(pod(), view(attempt(127, reason="no such file")))["containerStatuses"]
    ended = told["state"]["terminated"]
    assert (ended["reason"], ended["message"], ended["exitCode"]) == ("StartError", "no such file", 127)


def test_a_pod_without_a_container_yet_is_being_created() -> None:
    said = pod_status(pod(), PodView("netns", "198.18.0.11", containers=[view()]))
    assert said["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert "podIP" not in said
