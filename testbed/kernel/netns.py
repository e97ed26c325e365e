"""Network namespaces: make them, keep them by a bind mount, and do a piece of work inside one.

A socket or nft context belongs for ever to the namespace in which it was opened. So whoever needs a namespace enters
it for a moment (setns(2) moves only the calling thread), opens what is needed, comes back, and keeps the handle.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from testbed.errors import KernelError

T = TypeVar("T")

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2

_OWN = Path("/proc/thread-self/ns/net")

_libc = ctypes.CDLL(None, use_errno=True)


def inside(path: Path | str, work: Callable[[], T]) -> T:
    """Call `work` with the calling thread inside the network namespace at `path`. KernelError where there is none."""

    def enter() -> None:
        try:
            with Path(path).open("rb") as namespace:
                setns(namespace.fileno(), CLONE_NEWNET)
        except OSError as error:
            raise KernelError(f"namespace {path}: {error.strerror}", error.errno or 0) from None

    return _away(enter, work)


def number(path: Path) -> int:
    """Which namespace there is at `path`: its inode, another one for another namespace; 0 where it has just gone."""
    try:
        return path.stat().st_ino
    except (FileNotFoundError, ProcessLookupError):
        return 0


def create(path: Path) -> None:
    """Make a network namespace that lives as long as `path` is mounted; nothing happens where it exists."""
    if is_netns(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()

    _away(lambda: unshare(CLONE_NEWNET), lambda: mount(_OWN, path, None, MS_BIND))


def delete(path: Path) -> None:
    """Let go of the namespace at `path`; nothing happens where there is none."""
    if is_netns(path):
        umount(path)
    path.unlink(missing_ok=True)


def is_netns(path: Path) -> bool:
    """Whether a namespace is mounted at `path`."""
    try:
        return path.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def unshare(flags: int) -> None:
    """unshare(2) for the calling thread."""
    _checked(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, kind: int) -> None:
    """setns(2) for the calling thread."""
    _checked(_libc.setns(fd, kind), f"setns({kind:#x})")


def mount(source: str | Path, target: str | Path, fstype: str | None, flags: int, data: str = "") -> None:
    """mount(2)"""
    _checked(
        _libc.mount(
            str(source).encode(),
            str(target).encode(),
            fstype.encode() if fstype else None,
            ctypes.c_ulong(flags),
            data.encode() if data else None,
        ),
        f"mount {source} on {target}",
    )


def umount(target: str | Path) -> None:
    """umount2(2), lazily."""
    _checked(_libc.umount2(str(target).encode(), MNT_DETACH), f"umount {target}")


def pivot_root(path: str | Path) -> None:
    """pivot_root(2): `path`, a mount point, becomes the root of this mount namespace; the old root is let go."""
    os.chdir(path)
    _checked(_libc.pivot_root(b".", b"."), f"pivot_root {path}")
    umount(".")
    os.chdir("/")


def _away(leave: Callable[[], None], work: Callable[[], T]) -> T:
    """Leave this thread's namespace, work, and come back; where there is no way back, in a thread that ends there."""

    def for_ever() -> T:
        leave()
        return work()

    with _OWN.open("rb") as home:
        try:
            setns(home.fileno(), CLONE_NEWNET)
        except KernelError:
            return _in_thread(for_ever)
        leave()
        try:
            return work()
        finally:
            setns(home.fileno(), CLONE_NEWNET)


def _in_thread(work: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise KernelError(f"{what}: {os.strerror(number)}", number)
