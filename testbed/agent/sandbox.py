"""How the agent makes and finds sandboxes (a network namespace for each node and pod) and containers in them.

Two of them: `agent.docker_sandbox` and `agent.netns_sandbox`. Only they and `runtime/` know which runtime this is.
All methods are synchronous; the agent calls them in threads.

Streams are raw: `read(n)` returns as soon as there is something, blocks while there is nothing, and returns b"" at the
end; a read that blocks in another thread ends when the stream is closed or its session killed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Mount:
    """A directory or file of this host, seen in the container at `path`."""

    source: Path
    path: str
    read_only: bool = True


@dataclass(frozen=True)
class PodSandbox:
    """What keeps a pod's network: its namespace stays while containers come and go."""

    pod_uid: str
    namespace: str
    name: str
    netns: Path
    """To be opened by the agent: /proc/PID/ns/net, or a file that keeps the namespace."""
    handle: str = ""
    """The runtime's own word for it: a container id for docker."""


@dataclass(frozen=True)
class ContainerSpec:
    """One container to start."""

    pod_uid: str
    name: str
    image: str
    netns: Path
    """Of its pod, or of its node for a hostNetwork pod."""
    sandbox: str
    """The handle of its PodSandbox; empty for a hostNetwork pod."""
    node: str
    """The node of a hostNetwork pod, whose namespace it shares; empty for others."""
    hostname: str
    attempt: int
    command: Sequence[str] = ()
    """Replaces the image's entrypoint, as in a Pod."""
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    mounts: Sequence[Mount] = ()
    capabilities: Sequence[str] = ()
    host_pid: bool = False


@dataclass(frozen=True)
class ContainerState:
    """A container as the runtime shows it. Times are RFC 3339."""

    id: str
    pod_uid: str
    name: str
    image: str
    attempt: int
    is_running: bool
    pid: int
    started_at: str
    finished_at: str = ""
    exit_code: int | None = None
    reason: str = ""


class ExecSession(Protocol):
    """A program run inside a container. Reads block; they are made in threads. Who asked for it closes the streams."""

    stdin: RawIOBase | None
    stdout: RawIOBase
    stderr: RawIOBase | None
    """None with a terminal, where both arrive on stdout."""

    def resize(self, columns: int, rows: int) -> None:
        """The terminal's size."""
        ...

    def wait(self) -> int:
        """The exit code, when it has ended."""
        ...

    def kill(self) -> None:
        """End it; used when the client has gone."""
        ...


class Sandboxes(Protocol):
    """The container runtime of one host."""

    def place(self, name: str) -> Path | None:
        """The network namespace of a node, the switch or the control plane; None while its holder does not exist."""
        ...

    def ensure_pod(self, pod_uid: str, namespace: str, name: str, hostname: str, files: Path) -> PodSandbox:
        """The pod's sandbox, made where it is missing. `files` holds its `hosts` and `resolv.conf`."""
        ...

    def pods(self) -> list[PodSandbox]:
        """All pod sandboxes that exist."""
        ...

    def delete_pod(self, pod_uid: str) -> None:
        """Remove the sandbox and every container of the pod."""
        ...

    def containers(self) -> list[ContainerState]:
        """All containers of pods, those that ended included until they are deleted."""
        ...

    def start(self, spec: ContainerSpec) -> ContainerState:
        """Start a container. Raises NotFound for an image that cannot be had (ErrImagePull).

        One whose program cannot be run comes back ended, with its reason.
        """
        ...

    def stop(self, container_id: str, grace_s: float) -> None:
        """SIGTERM, and after `grace_s` SIGKILL; returns when it has ended."""
        ...

    def delete(self, container_id: str) -> None:
        """Forget an ended container, its log included."""
        ...

    def wait_for_change(self, timeout_s: float) -> bool:
        """Block until some container starts or ends; False after `timeout_s` with nothing."""
        ...

    def read_log(self, container_id: str, *, tail: int | None = None, follow: bool = False) -> RawIOBase:
        """The container's output, both streams in order; with `follow` reads block until it ends."""
        ...

    def exec(self, container_id: str, argv: Sequence[str], *, stdin: bool, tty: bool) -> ExecSession:
        """Run a program inside a running container."""
        ...
