"""Kernel parameters of a network namespace.

/proc/sys/net shows the namespace of whoever opens it (proc_sys(5): it is a view of the calling thread's own), so a
short-lived thread enters the namespace and writes there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from testbed.errors import KernelError
from testbed.kernel import netns as namespaces

log = logging.getLogger(__name__)

T = TypeVar("T")

_ROOT = Path("/proc/sys")


def set_sysctls(netns: Path | None, values: Mapping[str, str], *, missing_ok: bool = False) -> None:
    """Make each parameter have its value; one that has it already is not written, so a read-only /proc/sys may do.

    A dot inside a device's name is written as a slash, as sysctl(8) has it. Raises KernelError, naming the parameter;
    with `missing_ok`, one that this namespace does not have is passed over.
    """

    def write() -> None:
        for name, value in values.items():
            if not missing_ok or _path(name).exists():
                _set(netns, name, value)

    _inside(netns, write)


def get_sysctl(netns: Path | None, name: str) -> str:
    """The value of one parameter, without the line's end."""
    return _inside(netns, lambda: _path(name).read_text().strip())


def has_sysctl(name: str) -> bool:
    """Whether this kernel knows the parameter, in the namespace of the calling thread."""
    return _path(name).exists()


def _inside(netns: Path | None, work: Callable[[], T]) -> T:
    return work() if netns is None else namespaces.inside(netns, work)


def _set(netns: Path | None, name: str, value: str) -> None:
    path = _path(name)
    try:
        if path.read_text().split() == value.split():
            return
        log.info("%ssysctl -w %s=%s", f"nsenter --net={netns} " if netns else "", name, value)
        path.write_text(value)
    except OSError as error:
        raise KernelError(f"sysctl {name}={value}: {error.strerror}", error.errno or 0) from None


def _path(name: str) -> Path:
    return _ROOT / name.translate(str.maketrans("./", "/."))
