"""A container runtime in memory: `Sandboxes` for tests, held to the real ones by the same contract tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO, RawIOBase
from pathlib import Path
from typing import Any

from testbed.agent.sandbox import ContainerSpec, ContainerState, ExecSession, PodSandbox
from testbed.api.objects import now
from testbed.errors import NotFound

ROOT = Path("/fake")
REPOSITORY = "testbed/"
"""Only images of this repository can be had."""
TERMINATED = 128 + 15


@dataclass
class FakeSandboxes:
    """Pods and containers as records. Thread-safe, as agents call it from many threads."""

    places: dict[str, Path] = field(default_factory=dict)
    specs: dict[str, ContainerSpec] = field(default_factory=dict)
    """Every container that was started, by id."""
    logs: dict[str, bytes] = field(default_factory=dict)
    execute: Callable[[str, Sequence[str]], tuple[int, bytes]] = lambda _id, _argv: (0, b"")
    """What exec answers: exit code and output."""
    graces: dict[str, float] = field(default_factory=dict)
    """How long each container that was stopped would have had."""

    def __post_init__(self) -> None:
        self._pods: dict[str, PodSandbox] = {}
        self._containers: dict[str, ContainerState] = {}
        self._changed = threading.Condition()
        self._generation = self._seen = 0

    def place(self, name: str) -> Path | None:
        """See Sandboxes."""
        return self.places.get(name)

    def ensure_pod(self, pod_uid: str, namespace: str, name: str, hostname: str, files: Path) -> PodSandbox:  # noqa: ARG002 - no need in memory
        """See Sandboxes."""
        with self._changed:
            return self._pods.setdefault(pod_uid, PodSandbox(pod_uid, namespace, name, ROOT / pod_uid))

    def pods(self) -> list[PodSandbox]:
        """See Sandboxes."""
        with self._changed:
            return list(self._pods.values())

    def delete_pod(self, pod_uid: str) -> None:
        """See Sandboxes."""
        with self._changed:
            self._pods.pop(pod_uid, None)
            for state in [state for state in self._containers.values() if state.pod_uid == pod_uid]:
                del self._containers[state.id]
            self._tell()

    def containers(self) -> list[ContainerState]:
        """See Sandboxes."""
        with self._changed:
            self._seen = self._generation
            return list(self._containers.values())

    def start(self, spec: ContainerSpec) -> ContainerState:
        """See Sandboxes."""
        if not spec.image.startswith(REPOSITORY):
            raise NotFound(f"image {spec.image!r} cannot be had")
        container_id = f"{spec.pod_uid}-{spec.name}-{spec.attempt}"
        with self._changed:
            if container_id not in self._containers:
                pid = 100 + len(self.specs)
                self.specs[container_id] = spec
                self._containers[container_id] = ContainerState(
                    container_id, spec.pod_uid, spec.name, spec.image, spec.attempt, True, pid, now()
                )
                self._tell()
            return self._containers[container_id]

    def stop(self, container_id: str, grace_s: float) -> None:
        """See Sandboxes; every program obeys at once."""
        self.graces[container_id] = grace_s
        if self._find(container_id).is_running:
            self.end(container_id, TERMINATED)

    def end(self, container_id: str, exit_code: int) -> None:
        """Let a container's program end by itself."""
        with self._changed:
            ended = replace(self._find(container_id), is_running=False, pid=0, finished_at=now(), exit_code=exit_code)
            self._containers[container_id] = ended
            self._tell()

    def delete(self, container_id: str) -> None:
        """See Sandboxes."""
        with self._changed:
            self._containers.pop(container_id, None)
            self._tell()

    def wait_for_change(self, timeout_s: float) -> bool:
        """See Sandboxes."""
        with self._changed:
            return self._changed.wait_for(lambda: self._generation != self._seen, timeout_s)

    def read_log(self, container_id: str, *, tail: int | None = None, follow: bool = False) -> RawIOBase:  # noqa: ARG002 - no need in memory
        """See Sandboxes."""
        self._find(container_id)
        lines = self.logs.get(container_id, b"").splitlines(keepends=True)
        return _Raw(b"".join(lines if tail is None else lines[len(lines) - tail :]))

    def exec(self, container_id: str, argv: Sequence[str], *, stdin: bool, tty: bool) -> ExecSession:  # noqa: ARG002 - no need in memory
        """See Sandboxes."""
        if not self._find(container_id).is_running:
            raise NotFound(f"container {container_id!r} has ended")
        return FakeExec(*self.execute(container_id, argv))

    def _find(self, container_id: str) -> ContainerState:
        if container_id not in self._containers:
            raise NotFound(f"no container {container_id!r}")
        return self._containers[container_id]

    def _tell(self) -> None:
        self._generation += 1
        self._changed.notify_all()


class FakeExec:
    """A program that has written everything and ended."""

    def __init__(self, exit_code: int, output: bytes) -> None:
        self._exit_code = exit_code
        self.stdin: RawIOBase | None = None
        self.stdout: RawIOBase = _Raw(output)
        self.stderr: RawIOBase | None = _Raw(b"")

    def resize(self, columns: int, rows: int) -> None:
        """Nothing."""

    def wait(self) -> int:
        """The exit code."""
        return self._exit_code

    def kill(self) -> None:
        """Nothing."""


class _Raw(RawIOBase):
    def __init__(self, data: bytes) -> None:
        self._data = BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)
