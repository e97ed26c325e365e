"""The parts of a running cluster that may be killed at any moment, found by argv (netns) or by label (docker)."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from testbed.waiting import wait_until
from tests.e2e.command import run
from tests.e2e.machine import PROC, arguments

ROLES = {"control-plane": "control-plane", "agent": "agent", "node-daemon": "node-daemon"}
"""Part to the role in `python -m testbed.daemon ROLE`."""


@dataclass(frozen=True)
class Part:
    """A process and when it began: a process id alone may come again."""

    pid: int
    started_ticks: int

    @property
    def lives(self) -> bool:
        """Whether this very process is still there and no zombie."""
        stat = _stat(self.pid)
        return bool(stat) and stat[0] != "Z" and int(stat[19]) == self.started_ticks

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)


def parts(cluster: str, runtime: str, part: str) -> list[Part]:
    """The processes of a part: one control plane and agent, one or several node daemons. Empty where none runs."""
    return [_part(pid) for pid in _pids(cluster, runtime) if _is_role(pid, ROLES[part]) and _stat(pid)]


def all_parts(cluster: str, runtime: str) -> list[Part]:
    """Every process of a cluster, pods included, and on netns the anchor that keeps them."""
    return [_part(pid) for pid in _pids(cluster, runtime) if _stat(pid)]


def first_parts(cluster: str, runtime: str, part: str, timeout_s: float) -> list[Part]:
    """The same, as soon as there is one."""
    return wait_until(lambda: parts(cluster, runtime, part), timeout_s, f"a {part} of {cluster}", every_s=0.01)


def anchor(cluster: str) -> int | None:
    """The process that keeps a netns cluster, as seen from outside; None where there is none."""
    return next((pid for pid in _all_pids() if ("testbed-anchor", cluster) in pairwise(arguments(pid))), None)


def _pids(cluster: str, runtime: str) -> list[int]:
    return _anchored(cluster) if runtime == "netns" else _contained(cluster)


def _anchored(cluster: str) -> list[int]:
    root = anchor(cluster)
    return [root, *descendants(root)] if root else []


def _contained(cluster: str) -> list[int]:
    ids = run("docker", "ps", "--quiet", "--filter", f"label=testbed={cluster}").expect().stdout.split()
    if not ids:
        return []
    # One may have gone meanwhile: the others' answers count.
    roots = run("docker", "inspect", "--format", "{{.State.Pid}}", *ids).stdout.split()
    return [pid for root in roots if root != "0" for pid in (int(root), *descendants(int(root)))]


def descendants(root: int) -> list[int]:
    """All processes below `root`, whatever namespaces they are in."""
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        if stat := _stat(pid):
            children.setdefault(int(stat[1]), []).append(pid)
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _is_role(pid: int, role: str) -> bool:
    return ("testbed.daemon", role) in pairwise(arguments(pid))


def _part(pid: int) -> Part:
    stat = _stat(pid)
    return Part(pid, int(stat[19]) if stat else 0)


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from the state on (proc(5) field 3 first); empty where the process has gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path(PROC).iterdir() if path.name.isdigit()]
