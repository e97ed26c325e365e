"""Pods on bare network namespaces: the sandbox that asks the anchor.

A pod's sandbox is a network namespace named after the pod's uid; a container is a process of the anchor whose labels
say what it is. Nothing is kept here: an agent that starts anew finds everything at the anchor.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import FileIO, RawIOBase
from pathlib import Path
from typing import Any

import testbed
from testbed.agent.anchor_client import AnchorClient, Process
from testbed.agent.anchor_namespaces import PRIVATE
from testbed.agent.follow import FollowedLog, tail_offset
from testbed.agent.images import Image, find_image
from testbed.agent.netns_exec import PipeExec, TerminalExec
from testbed.agent.sandbox import ContainerSpec, ContainerState, ExecSession, Mount, PodSandbox
from testbed.errors import AlreadyExists, NotFound, TestbedError, TimedOut

CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip
"""What every container has, as with Docker."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KILLED_WITHIN_S = 10.0
PAUSE = "pause"
"""The role whose program reads no file, and so needs no root of its own: a pod of it costs a fork."""
POD = "pod"
"""The label that tells containers from daemons, and pods from places: the pod's uid."""


def place_name(cluster: str, place: str) -> str:
    """The name of a network namespace of a cluster: of a node, the switch, the control plane."""
    return f"testbed-{cluster}-{place}"


class NetnsSandboxes:
    """agent.sandbox.Sandboxes over an anchor. `run_dir` is the cluster's RUNDIR; logs and pod files lie in `state`."""

    def __init__(self, cluster: str, anchor: AnchorClient, run_dir: Path, state: Path) -> None:
        self._cluster = cluster
        self._anchor = anchor
        self._private = run_dir / PRIVATE
        self._state = state
        self._generation = -1

    def place(self, name: str) -> Path | None:
        """The namespace of a node, the switch or the control plane."""
        path = self._netns(name)
        return path if path.exists() else None

    def ensure_pod(self, pod_uid: str, namespace: str, name: str, hostname: str, files: Path) -> PodSandbox:
        """The pod's network namespace."""
        labels = {POD: pod_uid, "namespace": namespace, "name": name, "hostname": hostname, "files": str(files)}
        self._anchor.ensure_netns([self._pod_netns_name(pod_uid)], labels)
        return self._sandbox(labels)

    def pods(self) -> list[PodSandbox]:
        """Those whose namespace the anchor keeps."""
        return [self._sandbox(labels) for labels in self._anchor.netns().values() if POD in labels]

    def delete_pod(self, pod_uid: str) -> None:
        """The containers first, then the namespace."""
        for container in self.containers():
            if container.pod_uid == pod_uid:
                self.delete(container.id)
        self._anchor.delete_netns([self._pod_netns_name(pod_uid)])
        shutil.rmtree(self._state / "logs" / pod_uid, ignore_errors=True)

    def containers(self) -> list[ContainerState]:
        """The anchor's processes that carry a pod's label."""
        processes, self._generation = self._anchor.list()
        return [_state(process) for process in processes if POD in process.labels]

    def start(self, spec: ContainerSpec) -> ContainerState:
        """Run the image's program, or the pod's command, under the interpreter that runs the testbed."""
        plan = self._plan(spec, find_image(spec.image))
        try:
            return _state(self._anchor.run(plan))
        except AlreadyExists:
            return self._find(plan["id"])
        except NotFound:
            raise
        except TestbedError:
            return self._find(plan["id"])

    def stop(self, container_id: str, grace_s: float) -> None:
        """By the signal of its image; every process of the container has ended when this returns."""
        try:
            if grace_s > 0:
                self._anchor.signal(container_id, self._stop_signal(container_id))
                self._anchor.wait(container_id, grace_s)
                return
        except TimedOut:
            pass
        self._anchor.signal(container_id, signal.SIGKILL)
        self._anchor.wait(container_id, KILLED_WITHIN_S)

    def delete(self, container_id: str) -> None:
        """What it wrote goes too."""
        log = self._log_of(container_id)
        self._anchor.remove(container_id)
        if log:
            log.unlink(missing_ok=True)

    def wait_for_change(self, timeout_s: float) -> bool:
        """Relative to the last call of `containers`."""
        try:
            self._anchor.watch(self._generation, timeout_s)
        except TimedOut:
            return False
        return True

    def read_log(self, container_id: str, *, tail: int | None = None, follow: bool = False) -> RawIOBase:
        """The file that the process writes to."""
        log = self._log_of(container_id)
        if log is None or not log.exists():
            raise NotFound(f"container {container_id!r} has no log")
        offset = 0 if tail is None else tail_offset(log, tail)
        if follow:
            return FollowedLog(log, offset, self._anchor.ending(container_id))
        file = FileIO(log)
        file.seek(offset)
        return file

    def exec(self, container_id: str, argv: Sequence[str], *, stdin: bool, tty: bool) -> ExecSession:
        """Inside the namespaces and the root of the container's first process."""
        if tty:
            return TerminalExec(self._anchor, container_id, argv, stdin=stdin)
        return PipeExec(self._anchor, container_id, argv, stdin=stdin)

    def _netns(self, name: str) -> Path:
        return self._private / "netns" / place_name(self._cluster, name)

    def _pod_netns_name(self, pod_uid: str) -> str:
        return place_name(self._cluster, f"pod-{pod_uid}")

    def _sandbox(self, labels: Mapping[str, str]) -> PodSandbox:
        uid = labels[POD]
        return PodSandbox(uid, labels["namespace"], labels["name"], self._netns(f"pod-{uid}"))

    def _find(self, container_id: str) -> ContainerState:
        return next(container for container in self.containers() if container.id == container_id)

    def _log_of(self, container_id: str) -> Path | None:
        processes, _ = self._anchor.list()
        return next((Path(process.labels["log"]) for process in processes if process.id == container_id), None)

    def _stop_signal(self, container_id: str) -> signal.Signals:
        processes, _ = self._anchor.list()
        labels = next((process.labels for process in processes if process.id == container_id), {})
        return signal.Signals[labels.get("stop-signal", "SIGTERM")]

    def _plan(self, spec: ContainerSpec, image: Image) -> dict[str, Any]:
        container_id = f"{spec.pod_uid}-{spec.name}-{spec.attempt}"
        log = str(self._state / "logs" / spec.pod_uid / f"{spec.name}-{spec.attempt}.log")
        labels = {
            POD: spec.pod_uid, "name": spec.name, "image": spec.image, "attempt": str(spec.attempt), "log": log,
            "stop-signal": image.stop_signal,
        }  # fmt: skip
        return {
            "id": container_id,
            "labels": labels,
            "argv": [*(spec.command or image.entrypoint), *(spec.args or (() if spec.command else image.command))],
            "env": _environment(spec, image),
            "cwd": spec.working_dir or image.working_dir,
            "netns": str(spec.netns),
            "hostname": spec.hostname,
            "root": None if image.role == PAUSE and not spec.command else self._root(container_id, spec.mounts, image),
            "capabilities": [*CAPABILITIES, *spec.capabilities],
            "log": log,
        }

    def _root(self, container_id: str, mounts: Sequence[Mount], image: Image) -> dict[str, Any]:
        return {
            "directory": str(self._private / "containers" / container_id),
            "lower": [str(files) for files in image.files],
            "layers": str(self._private / "images"),
            "mounts": [{"source": str(m.source), "path": m.path, "read_only": m.read_only} for m in mounts],
        }


def _environment(spec: ContainerSpec, image: Image) -> dict[str, str]:
    """The image's variables, the interpreter that runs the testbed first in PATH, then what the pod says."""
    interpreter = Path(sys.executable).parent
    package = Path(testbed.__file__).parents[1]
    own = {"PATH": f"{interpreter}:{SYSTEM_PATH}", "HOME": "/root", "HOSTNAME": spec.hostname}
    return {**own, **image.env, "PYTHONPATH": str(package), **spec.env}


def _state(process: Process) -> ContainerState:
    return ContainerState(
        id=process.id,
        pod_uid=process.labels[POD],
        name=process.labels["name"],
        image=process.labels["image"],
        attempt=int(process.labels["attempt"]),
        is_running=process.pid != 0,
        pid=process.pid,
        started_at=_time(process.started),
        finished_at=_time(process.finished) if process.finished else "",
        exit_code=process.exit_code,
        reason=process.reason,
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
