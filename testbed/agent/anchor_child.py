"""What a process of the anchor does between fork and exec: enter its namespaces and its root, drop capabilities.

It runs in the forked child of a single thread, so it may block, and it raises: the anchor reports what it said.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import termios
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from testbed.agent.anchor_root import Machine, Step, enter_root
from testbed.errors import KernelError
from testbed.kernel import netns

PR_CAPBSET_DROP = 24
KEPT_FD = 3
"""The number under which a process finds the first of the sockets that the anchor keeps for it."""

_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""capabilities(7), each at the index of its number."""


class Roots(NamedTuple):
    """How roots are made on this machine."""

    machine: Machine
    steps: Sequence[Step]


def become(plan: Mapping[str, Any], stdio: Sequence[int], roots: Roots) -> NoReturn:
    """Turn this process into the program of the plan. OSError or KernelError where that cannot be.

    The plan has argv, env, cwd; either netns, hostname and root (anchor_root), or `join`: the pid of a process whose
    namespaces and root to share; `capabilities` (all others are given up; None keeps all); `terminal`.
    """
    os.setsid()
    _arrange(stdio)
    if plan.get("terminal"):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if joined := plan.get("join"):
        _join(int(joined))
    else:
        _enter(plan, roots)
    if (capabilities := plan.get("capabilities")) is not None:
        _keep_only(capabilities)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it; programs expect the default
    os.chdir(plan.get("cwd") or "/")
    os.execvpe(plan["argv"][0], plan["argv"], plan["env"])  # noqa: S606 - this is what the anchor is for


def _arrange(fds: Sequence[int]) -> None:
    """Give the descriptors the numbers from 0 on; all others close at exec."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in fds]
    for number, fd in enumerate(high):
        os.dup2(fd, number, inheritable=True)


def _enter(plan: Mapping[str, Any], roots: Roots) -> None:
    with Path(plan["netns"]).open("rb") as namespace:
        netns.setns(namespace.fileno(), netns.CLONE_NEWNET)
    if hostname := plan.get("hostname"):
        netns.unshare(netns.CLONE_NEWUTS)
        socket.sethostname(hostname)
    if root := plan.get("root"):
        enter_root(root, roots.machine, roots.steps)


def _join(pid: int) -> None:
    flags = {"uts": netns.CLONE_NEWUTS, "net": netns.CLONE_NEWNET, "mnt": netns.CLONE_NEWNS}
    namespaces = {name: os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in flags}
    for name, fd in namespaces.items():
        netns.setns(fd, flags[name])


def _keep_only(capabilities: Iterable[str]) -> None:
    """Shrink the bounding set; at exec a process of uid 0 has just what is in it."""
    kept = set(capabilities)
    libc = ctypes.CDLL(None, use_errno=True)
    for number, name in enumerate(_CAPABILITIES):
        if name not in kept and libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            reason = ctypes.get_errno()
            if reason != errno.EINVAL:  # a kernel that does not know this capability cannot give it either
                raise KernelError(f"give up CAP_{name}: {os.strerror(reason)}", reason)
