"""What every container runtime must do, over the one in memory and the one on namespaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.agent.fake import FakeSandboxes
from testbed.agent.sandbox import ContainerSpec, ContainerState, Sandboxes
from testbed.errors import MachineLacks, NotFound
from testbed.waiting import wait_until
from tests.kernel.anchors import running_anchor

SOON_S = 10.0
Fresh = Callable[[], Sandboxes]
"""A runtime as an agent that has just started sees it."""


@pytest.fixture(scope="module", params=["fake", "netns"])
def fresh(request: pytest.FixtureRequest) -> Iterator[Fresh]:
    if request.param == "fake":
        fake = FakeSandboxes()
        yield lambda: fake
        return
    try:
        with running_anchor() as running:
            yield running.sandboxes
    except MachineLacks as error:
        pytest.skip(str(error))


def started(sandboxes: Sandboxes, uid: str, *, image: str = "testbed/pause", attempt: int = 0) -> ContainerState:
    """A container in a pod of its own."""
    pod = sandboxes.ensure_pod(uid, "default", uid, uid, Path("/none"))
    return sandboxes.start(ContainerSpec(uid, "main", image, pod.netns, pod.handle, "", uid, attempt))


def state_of(sandboxes: Sandboxes, container_id: str) -> ContainerState | None:
    return next((state for state in sandboxes.containers() if state.id == container_id), None)


def test_a_pod_is_found_again_and_is_made_once(fresh: Fresh) -> None:
    made = fresh().ensure_pod("found", "default", "web", "web", Path("/none"))
    assert fresh().ensure_pod("found", "default", "web", "web", Path("/none")) == made
    assert made in fresh().pods()


def test_a_started_container_runs_and_is_found_again(fresh: Fresh) -> None:
    state = started(fresh(), "runs")
    assert (state.is_running, state.pod_uid, state.name, state.attempt) == (True, "runs", "main", 0)
    assert state_of(fresh(), state.id) == state


def test_starting_the_same_attempt_twice_starts_one_container(fresh: Fresh) -> None:
    sandboxes = fresh()
    assert started(sandboxes, "twice").id == started(sandboxes, "twice").id
    assert len([state for state in sandboxes.containers() if state.pod_uid == "twice"]) == 1


def test_an_image_that_cannot_be_had_is_not_found(fresh: Fresh) -> None:
    with pytest.raises(NotFound, match="nowhere/none"):
        started(fresh(), "imageless", image="nowhere/none:1")


def test_a_stopped_container_is_remembered_until_it_is_deleted(fresh: Fresh) -> None:
    sandboxes = fresh()
    state = started(sandboxes, "stopped")
    sandboxes.stop(state.id, 5)
    ended = state_of(fresh(), state.id)
    assert ended is not None
    assert not ended.is_running
    assert ended.exit_code in (128 + 15, 128 + 9), "as PID 1, which ignores SIGTERM, pause asks for SIGKILL"
    assert ended.finished_at >= ended.started_at
    sandboxes.delete(state.id)
    assert state_of(fresh(), state.id) is None


def test_a_change_wakes_who_waits_for_it(fresh: Fresh) -> None:
    sandboxes = fresh()
    sandboxes.containers()
    assert not sandboxes.wait_for_change(0.05)
    started(sandboxes, "change")
    assert sandboxes.wait_for_change(SOON_S)


def test_a_deleted_pod_takes_its_containers_along(fresh: Fresh) -> None:
    sandboxes = fresh()
    state = started(sandboxes, "deleted")
    sandboxes.delete_pod("deleted")
    sandboxes.delete_pod("deleted")
    assert state_of(sandboxes, state.id) is None
    assert "deleted" not in {pod.pod_uid for pod in sandboxes.pods()}


def test_what_does_not_exist_is_not_found(fresh: Fresh) -> None:
    sandboxes = fresh()
    for call in (
        lambda: sandboxes.stop("none", 0),
        lambda: sandboxes.read_log("none"),
        lambda: sandboxes.exec("none", ["true"], stdin=False, tty=False),
    ):
        with pytest.raises(NotFound):
            call()
    assert sandboxes.place("none") is None


def test_two_attempts_are_told_apart(fresh: Fresh) -> None:
    sandboxes = fresh()
    first = started(sandboxes, "again")
    sandboxes.stop(first.id, 5)
    second = started(sandboxes, "again", attempt=1)
    wait_until(lambda: len([s for s in sandboxes.containers() if s.pod_uid == "again"]) == 2, SOON_S, "both attempts")
    assert (first.attempt, second.attempt) == (0, 1)
