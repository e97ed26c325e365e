"""The processes of an anchor: started, watched, restarted where asked, and remembered after they ended.

A process is its plan (see anchor_child) with an `id`, free `labels`, the `log` its output goes to, and `restart`:
whether it is started again when it ends. The anchor is process 1 here, so what a program leaves behind becomes its
child, is reaped, and does not outlive the program's own mount namespace.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from testbed.agent.anchor_child import Roots, become
from testbed.errors import AlreadyExists, KernelError, NotFound, TestbedError

Plan = dict[str, Any]
Answer = Callable[[Any], None]
"""Told a result, or a TestbedError."""

SETTLED_S = 10.0
"""A process that lived this long is restarted at once; one that did not waits, ever longer."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 5.0


class Process:
    """One process and what became of it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pid = 0
        self.mount_namespace: int | None = None
        """A descriptor of its own mount namespace: while it is open, no new namespace gets the same number."""
        self.started = 0.0
        self.finished = 0.0
        self.exit_code: int | None = None
        self.reason = ""
        self.restarts = 0
        self.failures = 0
        self.on_exit: list[Answer] = []

    def hold_mount_namespace(self) -> None:
        """Remember the namespace that it made for its root, if it has one and still runs."""
        if self.plan.get("root") and self.pid:
            with contextlib.suppress(OSError):
                self.mount_namespace = os.open(f"/proc/{self.pid}/ns/mnt", os.O_RDONLY)

    def let_mount_namespace_go(self) -> None:
        """Nothing is left in it."""
        if self.mount_namespace is not None:
            os.close(self.mount_namespace)
            self.mount_namespace = None

    def kill_group(self) -> None:
        """End what is left of its process group; nothing happens where nothing is."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def state(self) -> dict[str, Any]:
        """What clients are told; times are seconds since the epoch."""
        return {
            "id": self.plan["id"],
            "labels": self.plan.get("labels") or {},
            "pid": self.pid,
            "started": self.started,
            "finished": self.finished,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "restarts": self.restarts,
        }


class Processes:
    """All processes of one anchor. `changed` is called whenever one starts or ends."""

    def __init__(
        self, selector: selectors.BaseSelector, roots: Roots, kept_fds: Sequence[int], changed: Callable[[], None]
    ) -> None:
        self._selector = selector
        self._roots = roots
        self._kept_fds = kept_fds
        self._changed = changed
        self._named: dict[str, Process] = {}
        self._by_pid: dict[int, Process] = {}
        self._due: dict[str, float] = {}

    def states(self) -> list[dict[str, Any]]:
        """The named processes, those that ended included until they are removed."""
        return [process.state() for process in self._named.values()]

    def find(self, name: str) -> Process:
        """NotFound where there is none of that id."""
        if process := self._named.get(name):
            return process
        raise NotFound(f"no process {name!r} here")

    def run(self, plan: Plan, answer: Answer) -> None:
        """Start a named process, and answer its state once its program runs; AlreadyExists while one has that id."""
        if plan["id"] in self._named:
            raise AlreadyExists(f"process {plan['id']!r} exists")
        process = self._named[plan["id"]] = Process(plan)
        self._start(process, answer)

    def execute(self, name: str, plan: Plan, stdio: Sequence[int], answer: Answer) -> Process:
        """Start a program inside a running process' namespaces; it is nameless and forgotten when it ends."""
        inside = self.find(name)
        if not inside.pid:
            raise NotFound(f"process {name!r} has ended")
        shared = {key: inside.plan.get(key) for key in ("capabilities", "cwd")}
        env = {**inside.plan["env"], **plan.get("extra_env", {})}
        process = Process({**shared, **plan, "env": env, "id": "", "join": inside.pid})
        self._fork(process, stdio, answer)
        return process

    def signal(self, name: str, number: int) -> None:
        """Send a signal to the process; with SIGKILL, to all that it started too. Nothing happens where it ended."""
        process = self.find(name)
        if process.pid:
            os.kill(process.pid, number)
            if number == signal.SIGKILL:
                _kill_rest(process)

    def remove(self, name: str) -> None:
        """End the process, forget it, and discard what its root held; nothing happens where there is none."""
        if process := self._named.pop(name, None):
            self._due.pop(name, None)
            process.plan["restart"] = False
            if process.pid:
                os.kill(process.pid, signal.SIGKILL)
                _kill_rest(process)
            if root := process.plan.get("root"):
                self._discard(root["directory"])
            self._changed()

    def reap(self) -> None:
        """Take note of every child that has ended, the adopted ones too."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if process := self._by_pid.pop(pid, None):
                    self._ended(process, os.waitstatus_to_exitcode(status))

    def next_due_s(self) -> float | None:
        """How long until a restart is due; None where none is."""
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def restart_due(self) -> None:
        """Start again those whose delay is over."""
        now = time.monotonic()
        for name in [name for name, due in self._due.items() if due <= now]:
            del self._due[name]
            process = self._named[name]
            process.restarts += 1
            self._start(process, lambda _: None)

    def _start(self, process: Process, answer: Answer) -> None:
        log = Path(process.plan["log"])
        log.parent.mkdir(parents=True, exist_ok=True)
        null = os.open(os.devnull, os.O_RDONLY)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        kept = self._kept_fds if process.plan.get("keep_fds") else ()
        try:
            self._fork(process, [null, output, output, *kept], answer)
        finally:
            os.close(null)
            os.close(output)

    def _fork(self, process: Process, stdio: Sequence[int], answer: Answer) -> None:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._be_child(process.plan, stdio, writer)
        os.close(writer)
        process.pid, process.started, process.finished, process.exit_code = pid, time.time(), 0.0, None
        self._by_pid[pid] = process
        self._selector.register(reader, selectors.EVENT_READ, lambda: self._started(process, reader, answer))

    def _discard(self, directory: str) -> None:
        """By a program of its own: a container may have written much."""
        plan = {
            "id": "",
            "argv": ["rm", "-rf", directory],
            "env": {"PATH": "/usr/bin:/bin"},
            "netns": "/proc/self/ns/net",
        }
        null = os.open(os.devnull, os.O_RDWR)
        self._fork(Process(plan), [null, null, null], lambda _: None)
        os.close(null)

    def _be_child(self, plan: Plan, stdio: Sequence[int], writer: int) -> NoReturn:
        try:
            writer = fcntl.fcntl(writer, fcntl.F_DUPFD_CLOEXEC, 10)
            signal.set_wakeup_fd(-1)
            become(plan, stdio, self._roots)
        except (OSError, KernelError, TypeError, ValueError) as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(127)

    def _started(self, process: Process, reader: int, answer: Answer) -> None:
        """The pipe closes at exec; what comes out of it before is why there was none."""
        failure = os.read(reader, 4096).decode(errors="replace")
        self._selector.unregister(reader)
        os.close(reader)
        if failure:
            process.reason = failure
            process.on_exit.clear()
            if self._by_pid.pop(process.pid, None):
                os.waitpid(process.pid, 0)
                self._ended(process, 127)
            answer(TestbedError(failure))
        else:
            process.hold_mount_namespace()
            answer(process.state())
            self._changed()

    def _ended(self, process: Process, code: int) -> None:
        _kill_rest(process)
        process.let_mount_namespace_go()
        lived = time.time() - process.started
        process.pid, process.finished, process.exit_code = 0, time.time(), code if code >= 0 else 128 - code
        if process.plan.get("restart"):
            process.failures = 0 if lived >= SETTLED_S else process.failures + 1
            delay = min(FIRST_DELAY_S * 2 ** (process.failures - 1), LONGEST_DELAY_S) if process.failures > 1 else 0.0
            self._due[process.plan["id"]] = time.monotonic() + delay
        for answer in process.on_exit:
            answer(process.state())
        process.on_exit.clear()
        self._changed()


def _kill_rest(process: Process) -> None:
    """What a program started ends with it: its process group, and all in a mount namespace of its own."""
    process.kill_group()
    if process.mount_namespace is None:
        return
    number = os.fstat(process.mount_namespace).st_ino
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are all that is wanted
        if entry.isdigit() and _mount_namespace_number(entry) == number:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry), signal.SIGKILL)


def _mount_namespace_number(pid: str) -> int:
    try:
        return Path(f"/proc/{pid}/ns/mnt").stat().st_ino
    except OSError:
        return 0
