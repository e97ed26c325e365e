"""The anchor's own namespaces, and the network namespaces that it keeps.

A network namespace is kept by a descriptor: RUNDIR/private/netns/NAME is a symlink to /proc/1/fd/N, on a tmpfs that
only the anchor's mount namespace has. Bind mounts would be copied into every container's mount namespace, and the
namespaces would live on there.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from testbed.agent.anchor_root import MS_NODEV, MS_NOEXEC, MS_NOSUID
from testbed.errors import KernelError
from testbed.kernel import netns

PROCESS_NAME = "testbed-anchor"
PRIVATE = "private"
"""The directory below RUNDIR that is a tmpfs of the anchor's own."""
PR_SET_NAME = 15
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40


class Namespaces:
    """Network namespaces by name, each with labels."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._fds: dict[str, int] = {}
        self.labels: dict[str, Mapping[str, str]] = {}

    def ensure(self, name: str, labels: Mapping[str, str]) -> None:
        """A namespace of that name, with `lo` up; one that exists keeps the labels it was made with."""
        if name in self._fds:
            return
        self._fds[name] = self._make()
        self.labels[name] = labels
        (self._directory / name).symlink_to(f"/proc/1/fd/{self._fds[name]}")

    def delete(self, name: str) -> None:
        """Let go of it: the kernel removes it, and its devices, when nobody else is in it."""
        if name in self._fds:
            (self._directory / name).unlink()
            os.close(self._fds.pop(name))
            del self.labels[name]

    def _make(self) -> int:
        netns.unshare(netns.CLONE_NEWNET)
        try:
            bring_up_loopback()
            return os.open("/proc/self/ns/net", os.O_RDONLY)
        finally:
            netns.setns(self._home, netns.CLONE_NEWNET)


def bring_up_loopback() -> None:
    """`lo` is up in the namespace of the calling thread: without it, onlink routes are not valid."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP | IFF_RUNNING))


def enter_namespaces(private: Path) -> bool:
    """Return as process 1 of new namespaces, with a /proc of their own; the calling process ends with 0.

    Says whether there is a user namespace among them. KernelError where the machine does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    flags = netns.CLONE_NEWPID | netns.CLONE_NEWNS | netns.CLONE_NEWNET | netns.CLONE_NEWUTS | netns.CLONE_NEWIPC
    try:
        netns.unshare(flags | (netns.CLONE_NEWUSER if user else 0))
    except KernelError:
        if user:
            raise
        netns.unshare(flags | netns.CLONE_NEWUSER)  # root of a container, without the capability
        user = -1
    if user:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {max(user, 0)} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1", encoding="ascii")
    if os.fork():
        os._exit(0)
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_NAME, PROCESS_NAME.encode(), 0, 0, 0)
    netns.mount("none", "/", None, netns.MS_REC | netns.MS_PRIVATE)
    netns.mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    private.mkdir(parents=True, exist_ok=True)
    netns.mount("tmpfs", private, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700")
    return bool(user)
