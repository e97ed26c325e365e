"""When the engine is asked about a container again, and when what it said still holds."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
from docker.errors import NotFound

from testbed.agent.docker_looks import Looks, began


class CountingEngine:
    """One container, and how often it was asked for."""

    def __init__(self, pid: int) -> None:
        self.asked = 0
        self.state: dict[str, Any] | None = {"Running": pid != 0, "Pid": pid}

    def looks(self) -> Looks:
        """A cache in front of it."""
        api = SimpleNamespace(inspect_container=self._inspect)
        return Looks(cast(docker.DockerClient, SimpleNamespace(api=api)))

    def _inspect(self, _: str) -> dict[str, Any]:
        self.asked += 1
        if self.state is None:
            raise NotFound("no such container")
        return {"Id": "c1", "State": dict(self.state)}


def test_a_container_is_asked_for_once_while_its_process_lives() -> None:
    engine = CountingEngine(os.getpid())
    looks = engine.looks()
    assert looks.at("c1") == looks.at("c1")
    assert engine.asked == 1


def test_it_is_asked_for_again_when_its_process_has_gone() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        engine = CountingEngine(process.pid)
        looks = engine.looks()
        looks.at("c1")
        process.kill()
    engine.state = {"Running": False, "Pid": 0}
    look = looks.at("c1")
    assert look is not None
    assert not look["State"]["Running"]


@pytest.mark.parametrize(("is_running", "asked"), [(False, 1), (True, 2), (None, 2)])
def test_one_that_has_ended_is_asked_for_again_unless_a_list_says_it_is_ended(
    is_running: bool | None, asked: int
) -> None:
    engine = CountingEngine(0)
    looks = engine.looks()
    looks.at("c1")
    looks.at("c1", is_running=is_running)
    assert engine.asked == asked


def test_one_that_was_removed_is_none() -> None:
    engine = CountingEngine(0)
    looks = engine.looks()
    looks.at("c1")
    engine.state = None
    assert looks.at("c1") is None


def test_a_process_that_is_not_there_began_never() -> None:
    assert began(0) == ""
    assert began(os.getpid()) != ""
