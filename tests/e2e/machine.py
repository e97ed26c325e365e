"""What is on this machine, looked at with no code of the testbed: the independent witness that `down` left nothing."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import TimedOut
from testbed.waiting import wait_until
from tests.e2e.command import run

PROC = Path("/proc")


ENGINE_DEVICE = re.compile(r"docker0|br-[0-9a-f]{12}|veth[0-9a-f]{7}")
"""Devices of a Docker engine, which others may use at the same time; ours have other names."""


@dataclass(frozen=True)
class Machine:
    """What a network can leave in the machine's own namespaces, by kind; a Docker engine's own is not counted."""

    links: frozenset[str]
    routes: frozenset[str]
    addresses: frozenset[str]
    nft_tables: frozenset[str]

    @classmethod
    def seen_now(cls) -> Machine:
        """The machine as it is."""
        return cls(
            links=_not_the_engines(path.name for path in Path("/sys/class/net").iterdir()),
            routes=_not_the_engines(_lines("ip", "route", "show", "table", "all")),
            addresses=_not_the_engines(_lines("ip", "-brief", "-4", "address")),
            nft_tables=_lines("nft", "list", "tables") if os.geteuid() == 0 else frozenset(),
        )

    def new_since(self, before: Machine) -> list[str]:
        """What is here and was not there before, a line each."""
        return [
            f"{kind}: {item}" for kind, items in vars(self).items() for item in sorted(items - getattr(before, kind))
        ]

    def lost_since(self, before: Machine) -> list[str]:
        """What was there before and is gone: a clean-up that took what was not its own."""
        return before.new_since(self)


def traces_of(cluster: str) -> list[str]:
    """Every process, mount, file, netns, container, volume and network that bears the cluster's name, a line each."""
    return [*_processes_of(cluster), *_mounts_of(cluster), *_files_of(cluster), *_engine_objects_of(cluster)]


def assert_nothing_left(cluster: str, before: Machine, timeout_s: float = 5) -> None:
    """Nothing bears the cluster's name, and the machine is as it was; the kernel may take a moment to let go."""

    def found() -> list[str]:
        now = Machine.seen_now()
        return traces_of(cluster) + now.new_since(before) + [f"lost {line}" for line in now.lost_since(before)]

    try:
        wait_until(lambda: not found(), timeout_s, f"the end of {cluster}", every_s=0.2)
    except TimedOut:
        left = found()
        assert not left, f"{cluster} left behind or took away:\n" + "\n".join(left)


def has_docker() -> bool:
    """Whether a Docker engine answers here."""
    return shutil.which("docker") is not None and run("docker", "info", "--format", "{{.ServerVersion}}").code == 0


def _processes_of(cluster: str) -> Iterator[str]:
    """Processes with the cluster as an argument or as part of a path among their arguments; never this one."""
    for pid in (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()):
        argv = arguments(pid)
        if pid != os.getpid() and any(cluster == arg or f"/{cluster}/" in f"{arg}/" for arg in argv):
            yield f"process {pid}: {' '.join(argv)[:160]}"


def _mounts_of(cluster: str) -> Iterator[str]:
    for line in (PROC / "self/mountinfo").read_text().splitlines():
        if cluster in line:
            yield f"mount: {line}"


def directories_of(cluster: str) -> list[Path]:
    """Where a netns cluster of this user may keep files (the XDG base directories, and what stands in for them)."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    own = Path(tempfile.gettempdir()) / f"testbed-{os.getuid()}" if os.getuid() else Path("/run/testbed")
    return [root / cluster for root in [state / "testbed", own, *([Path(runtime) / "testbed"] if runtime else [])]]


def _files_of(cluster: str) -> Iterator[str]:
    yield from (f"files: {directory}" for directory in directories_of(cluster) if directory.exists())
    yield from (f"netns: {path}" for path in Path("/run/netns").glob(f"*{cluster}*"))


def _engine_objects_of(cluster: str) -> Iterator[str]:
    """By label, and by name in case a label is forgotten."""
    if not has_docker():
        return
    for what, *command in (("container", "ps", "--all"), ("volume", "volume", "ls"), ("network", "network", "ls")):
        for sort in ("label=testbed", "name"):
            listed = run("docker", *command, "--quiet", "--filter", f"{sort}={cluster}").expect().stdout.split()
            yield from (f"{what}: {each}" for each in listed)


def arguments(pid: int) -> list[str]:
    """The argument vector of a process; empty where it has gone or is the kernel's."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _lines(*argv: str) -> frozenset[str]:
    return frozenset(line.strip() for line in run(*argv).expect().stdout.splitlines() if line.strip())


def _not_the_engines(lines: Iterable[str]) -> frozenset[str]:
    return frozenset(line for line in lines if not ENGINE_DEVICE.search(line))
