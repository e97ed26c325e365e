"""A root of its own for a container, made from the machine's root without changing it.

    RUNDIR/private/containers/ID/root     the container's /
      overlay   layer-0                   what the container writes, on the anchor's tmpfs
                image files               images/<role>/files, copied to that tmpfs
                /                         the machine's root, never written
      bind      /proc /dev, fresh /sys and /run, the pod's volumes, /etc/hosts, /etc/resolv.conf

A file system mounted on the way to something that programs need (a separate /usr, /home or /tmp) gets an overlay of its
own. In a user namespace the kernel does not let a directory that has mounts below it be the lower one of an overlay,
since that would show what they hide; there, `/` is a plain directory and /usr, /etc and so on get an overlay each.

Mount points are made in the layers before these are mounted: in a user namespace overlayfs cannot copy up a directory
that the machine's root owns. The image's files are copied because overlayfs refuses a lower directory that lies
inside another one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from testbed.errors import KernelError
from testbed.kernel import netns

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
OVERLAY, FRESH, BIND, DIRECTORY, LINK = "overlay", "fresh", "bind", "directory", "link"

_PSEUDO_TYPES = frozenset(("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "mqueue", "securityfs", "bpf"))
_SPECIAL = ("/proc", "/sys", "/dev")
_FRESH = ("/run",)
_WRITABLE = ("/tmp", "/var/log", "/var/tmp")  # noqa: S108
_EXPECTED = (
    "/bin", "/etc", "/home", "/lib", "/lib64", "/opt", "/root", "/sbin", "/usr/local", "/var/lib", *_WRITABLE, *_FRESH,
)  # fmt: skip


class Step(NamedTuple):
    """One directory of the container's root, and how it comes about."""

    path: str
    how: str


class Machine(NamedTuple):
    """What decides how a root is made here."""

    mounts: tuple[str, ...]
    """Where file systems with files are mounted, `/` left out."""
    wanted: tuple[str, ...]
    """Real paths that programs must find."""
    is_user: bool
    """In a user namespace: no lower directory may have mounts below it, and overlayfs marks files with user.*."""

    def mounts_below(self, path: str) -> list[str]:
        """The mounts inside the directory."""
        return [mount for mount in self.mounts if _holds(path, mount) and mount != path]

    def is_on_the_way(self, path: str) -> bool:
        """Whether something wanted lies in the directory, or is it."""
        return any(_holds(path, want) for want in self.wanted)


def this_machine(needed: Iterable[str], *, is_user: bool = False) -> Machine:
    """As this process sees it (proc(5), mountinfo); `needed` are paths beside those that every program expects."""
    mounts = set()
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, source = line.partition(" - ")
        if source.split()[0] not in _PSEUDO_TYPES:
            mounts.add(fields.split()[4].encode().decode("unicode_escape"))
    wanted = (*_EXPECTED, *(os.path.realpath(path) for path in needed))
    return Machine(tuple(sorted(mounts - {"/"})), wanted, is_user)


def recipe(machine: Machine) -> tuple[Step, ...]:
    """How to make a root on this machine, parents first; the same for each of its containers."""
    return tuple(_steps("/", machine))


def enter_root(root: Mapping[str, Any], machine: Machine, steps: Sequence[Step]) -> None:
    """Make the container's file system the root of the calling process, in a mount namespace of its own.

    `root` has `directory` (on a tmpfs, made here), `lower` (the images' files, topmost first), `layers` (the directory
    on that tmpfs where they are copied to) and `mounts` (source, path, read_only).
    """
    netns.unshare(netns.CLONE_NEWNS)
    directory = Path(root["directory"])
    merged = directory / "root"
    merged.mkdir(parents=True)
    mounts = [(_real_target(mount["path"]), mount) for mount in root["mounts"]]
    lower = [_layer(Path(files), Path(root["layers"])) for files in root["lower"]]
    places = [step.path for step in steps if step.how in (OVERLAY, FRESH, DIRECTORY)]
    for number, step in enumerate(steps):
        inside = [(path, mount) for path, mount in mounts if _innermost(path, places) == step.path]
        _make(step, directory / f"layer-{number}", merged, _Content(inside, lower, machine.is_user))
    for pseudo in ("/proc", "/dev"):
        _bind(pseudo, f"{merged}{pseudo}", read_only=False)
    _mount_sys(merged)
    for path, mount in mounts:
        _bind(mount["source"], f"{merged}{path}", read_only=mount["read_only"])
    netns.pivot_root(merged)


def _layer(files: Path, layers: Path) -> str:
    """A copy of an image's files, made when they are first needed and again when they have changed."""
    found = [files, *sorted(files.rglob("*"))]
    version = max(path.stat().st_mtime_ns for path in found)
    layer = layers / f"{files.parent.name}-{version}"
    if not layer.exists():
        beside = layers / f".{layer.name}.{os.getpid()}"
        beside.mkdir(parents=True)
        for path in found:
            _copy(path, beside / path.relative_to(files))
        with suppress(OSError):  # another container's start has made it meanwhile
            beside.rename(layer)
    return str(layer)


def _copy(path: Path, to: Path) -> None:
    if path.is_symlink():
        to.symlink_to(path.readlink())
        return
    if path.is_dir():
        to.mkdir(exist_ok=True)
    else:
        to.write_bytes(path.read_bytes())
    to.chmod(path.stat().st_mode & 0o7777)


class _Content(NamedTuple):
    mounts: Sequence[tuple[str, Mapping[str, Any]]]
    lower: Sequence[str]
    is_user: bool


def _steps(path: str, machine: Machine) -> Iterator[Step]:
    below = machine.mounts_below(path)
    if path in _FRESH:
        yield Step(path, FRESH)
    elif not (machine.is_user and below):
        yield Step(path, OVERLAY)
        for mount in _outermost([*below, *(fresh for fresh in _FRESH if _holds(path, fresh))]):
            if machine.is_on_the_way(mount):
                yield from _steps(mount, machine)
    elif not machine.is_on_the_way(path) or (path in machine.wanted and path not in _WRITABLE):
        yield Step(path, BIND)
    else:
        yield Step(path, DIRECTORY)
        for child in sorted(f"{path.rstrip('/')}/{name}" for name in os.listdir(path)):  # noqa: PTH208
            yield from _steps_of_child(child, machine)


def _steps_of_child(path: str, machine: Machine) -> Iterator[Step]:
    if Path(path).is_symlink():
        yield Step(path, LINK)
    elif path in _SPECIAL:
        yield Step(path, DIRECTORY)
    elif machine.is_on_the_way(path) or any(_holds(want, path) for want in machine.wanted if want not in _WRITABLE):
        yield from _steps(path, machine)


def _make(step: Step, layer: Path, merged: Path, content: _Content) -> None:
    target = Path(f"{merged}{step.path.rstrip('/')}")
    if step.how == LINK:
        target.symlink_to(Path(step.path).readlink())
        return
    target.mkdir(exist_ok=True)
    if step.how == BIND:
        _bind(step.path, str(target), read_only=True)
    elif step.how == DIRECTORY:
        if step.path == "/":  # pivot_root wants a mount
            netns.mount(target, target, None, netns.MS_BIND)
        _prepare(target, step.path, content.mounts)
    elif step.how == FRESH:
        _prepare(layer, step.path, content.mounts)
        netns.mount(layer, target, None, netns.MS_BIND)
    else:
        _prepare(layer, step.path, content.mounts)
        _mount_overlay(step.path, layer, target, content)


def _prepare(layer: Path, base: str, mounts: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Make the layer, and in it what must not be copied up later: mount points, and what everybody may write to."""
    layer.mkdir(exist_ok=True)
    layer.chmod(_mode(base))
    for path in _WRITABLE:
        if _holds(base, path) and Path(path).is_dir():
            _make_directory(layer, base, path)
    for path, mount in mounts:
        if Path(mount["source"]).is_dir():
            _make_directory(layer, base, path)
        else:
            _make_directory(layer, base, str(Path(path).parent))
            Path(f"{layer}/{os.path.relpath(path, base)}").touch()


def _make_directory(layer: Path, base: str, path: str) -> None:
    """The directory in the layer, each part with the mode it has on the machine: the merged one shows the layer's."""
    here, there = layer, base.rstrip("/")
    for part in Path(os.path.relpath(path, base)).parts:
        here, there = here / part, f"{there}/{part}"
        if not here.is_dir():
            here.mkdir()
            here.chmod(_mode(there))


def _mount_overlay(path: str, layer: Path, target: Path, content: _Content) -> None:
    work = Path(f"{layer}-work")
    work.mkdir()
    above = [lower for lower in (image + path.rstrip("/") for image in content.lower) if Path(lower).is_dir()]
    layers = ":".join((*above, path))
    marks = ",userxattr" if content.is_user else ""
    netns.mount("overlay", target, "overlay", 0, f"lowerdir={layers},upperdir={layer},workdir={work}{marks}")


def _mount_sys(merged: Path) -> None:
    """The devices of this network namespace; where the kernel refuses a fresh sysfs, the machine's own."""
    try:
        netns.mount("sysfs", merged / "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY)
    except KernelError:
        _bind("/sys", f"{merged}/sys", read_only=True)


def _bind(source: str, target: str, *, read_only: bool) -> None:
    netns.mount(source, target, None, netns.MS_BIND | netns.MS_REC)
    if read_only:
        kept = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)  # the same bits; locked ones must stay
        netns.mount("none", target, None, netns.MS_BIND | MS_REMOUNT | MS_RDONLY | kept)


def _real_target(path: str) -> str:
    """Where a mount point really is: /var/run/x is /run/x on most machines, and a symlink cannot be a mount point."""
    clean = Path(os.path.normpath(path))
    return str(Path(os.path.realpath(clean.parent)) / clean.name)


def _mode(path: str) -> int:
    try:
        return Path(path).stat().st_mode & 0o7777
    except FileNotFoundError:
        return 0o755


def _holds(directory: str, path: str) -> bool:
    return (path + "/").startswith(directory.rstrip("/") + "/")


def _innermost(path: str, directories: Iterable[str]) -> str:
    return max((directory for directory in directories if _holds(directory, path)), key=len)


def _outermost(paths: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(_holds(outer, path) for outer in kept):
            kept.append(path)
    return kept
