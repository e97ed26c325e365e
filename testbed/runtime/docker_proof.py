"""What the machine and its engine had before a cluster came, kept as a label, and the proof that they are so again."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker

from testbed.agent.docker_engine import explained
from testbed.agent.docker_names import CLUSTER_LABEL
from testbed.runtime import docker_objects as objects
from testbed.runtime.machine import Comparison, Machine, compare, settled

PROC = Path("/proc")


@dataclass(frozen=True)
class Before:
    """The machine, and how much the engine had that belongs to no cluster of ours."""

    machine: Machine
    others: dict[str, list[str]]

    @classmethod
    def seen_now(cls, engine: docker.DockerClient) -> Before:
        """As it is now."""
        return cls(Machine.seen_now(), _others(engine))

    def to_json(self) -> str:
        """For the switch's label; `from_json` reads it back."""
        return json.dumps({"machine": self.machine.to_json(), "others": self.others})

    @classmethod
    def from_json(cls, text: str) -> Before:
        """What `to_json` wrote."""
        doc = json.loads(text)
        return cls(Machine.from_json(doc["machine"]), doc["others"])


def prove(engine: docker.DockerClient, cluster: str, before: Before | None, containers: Collection[str]) -> Comparison:
    """Compare after a removal. `containers` are the ids that were removed; no process may be left in one."""
    return settled(lambda: _compare(engine, cluster, before, containers))


def _compare(
    engine: docker.DockerClient, cluster: str, before: Before | None, containers: Collection[str]
) -> Comparison:
    left = list(_left(engine, cluster, containers))
    mine = f"no container, volume or network of {cluster}, no process in its {len(containers)} containers"
    checked = [] if left else [mine]
    if before is None:
        return Comparison((*checked, "nothing was kept to compare the rest with"), tuple(left))
    now = Before.seen_now(engine)
    checked += [_compared(kind, then, now.others[kind]) for kind, then in before.others.items()]
    machine = compare(before.machine, now.machine)
    return Comparison((*checked, *machine.checked), (*left, *machine.leftovers))


def _left(engine: docker.DockerClient, cluster: str, removed: Collection[str]) -> Iterator[str]:
    yield from (f"container {container.name}" for container in objects.containers(engine, cluster))
    yield from (f"volume {name}" for name in objects.volumes(engine, cluster))
    yield from (f"network {name}" for name in objects.networks(engine, cluster))
    yield from (f"process {pid} in container {container[:12]}" for pid, container in _processes(removed))


def _processes(containers: Collection[str]) -> Iterator[tuple[str, str]]:
    """Processes whose control group is named after one of the containers."""
    if not containers:
        return
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                group = (entry / "cgroup").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            yield from ((entry.name, container) for container in containers if container in group)


def _others(engine: docker.DockerClient) -> dict[str, list[str]]:
    """Names of what carries no label of ours, by kind."""
    with explained("looking at what the engine has"):
        listed = {
            "containers": [(one["Names"][0], one["Labels"]) for one in engine.api.containers(all=True) if one["Names"]],
            "volumes": [(one["Name"], one["Labels"]) for one in engine.api.volumes()["Volumes"] or ()],
            "networks": [(one["Name"], one["Labels"]) for one in engine.api.networks()],
        }
    return {
        kind: sorted(name for name, labels in found if CLUSTER_LABEL not in (labels or {}))
        for kind, found in listed.items()
    }


def _compared(kind: str, then: Collection[str], now: Collection[str]) -> str:
    came, went = len(set(now) - set(then)), len(set(then) - set(now))
    changes = [f"{count} {verb}" for count, verb in ((came, "came"), (went, "went")) if count]
    return f"{len(now)} other {kind}, {' and '.join(changes) + ' meanwhile' if changes else 'as before'}"
