"""What the engine tells of single containers, asked again only when it may have changed.

A list of containers tells no process ids, and asking for each costs milliseconds. But while a container's first
process lives, so does everything that was said of it; and a process is known by its id and the tick it began at.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound

from testbed.agent.docker_engine import explained

PROC = Path("/proc")
START_TIME = 19
"""Of a process, in ticks: field 22 of proc(5), counted from the state, which is field 3."""


@dataclass(frozen=True)
class _Look:
    container: Mapping[str, Any]
    began: str

    def is_true(self, is_running: bool | None) -> bool:
        if self.container["State"]["Running"]:
            return self.began != "" and began(self.container["State"]["Pid"]) == self.began
        return is_running is False


class Looks:
    """Inspections of containers by id or name. Sees the processes of the engine's machine in /proc."""

    def __init__(self, engine: docker.DockerClient) -> None:
        self._engine = engine
        self._kept: dict[str, _Look] = {}

    def at(self, container: str, *, is_running: bool | None = None) -> Mapping[str, Any] | None:
        """The engine's account of a container; None where there is none. `is_running`, if a list has just told it."""
        kept = self._kept.get(container)
        if kept and kept.is_true(is_running):
            return kept.container
        with explained("looking at a container"):
            try:
                found: Mapping[str, Any] = self._engine.api.inspect_container(container)
            except NotFound:
                self._kept.pop(container, None)
                return None
        self._kept[container] = _Look(found, began(found["State"]["Pid"]))
        return found

    def forget_but(self, containers: Collection[str]) -> None:
        """Let go of the ended containers that are not among these."""
        for container, look in list(self._kept.items()):
            if container not in containers and not look.is_true(None):
                self._kept.pop(container, None)


def began(pid: int) -> str:
    """When the process began, in ticks since boot; empty where there is none."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(")")[2].split()[START_TIME]
