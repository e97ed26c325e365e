"""iptables of one network namespace, by the programs iptables-restore and iptables-save.

Whatever they are: the variant over nf_tables, in which each table of a script is a transaction, or the legacy one, in
which each exchanges the whole table for another. Only the legacy one takes a lock, against itself.

Source: iptables-restore(8), xtables-nft(8), linux/netfilter_ipv4/ip_tables.h.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import shlex
import socket
import struct
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from testbed import shell
from testbed.errors import CommandFailed, KernelError
from testbed.kernel import netns as namespaces
from testbed.kernel.nft import LibNft

log = logging.getLogger(__name__)

T = TypeVar("T")

TABLES = ("nat", "filter", "mangle")

_LEGACY_TABLES = Path("/proc/thread-self/net/ip_tables_names")
_LOCK = Path("/run/xtables.lock")
_TIMEOUT_S = 300.0
_SHOWN_LINES = 40
"""Of a script, in the log."""
_LINE = re.compile(r"line:? (\d+)")
_KNOWN = (errno.EMSGSIZE, errno.ENOENT, errno.EEXIST, errno.EPERM, errno.EBUSY)

_IPT_SO_GET_INFO = 64
_INFO = struct.Struct("=32s11I2I")
"""struct ipt_getinfo: the table's name, hooks and offsets, the number of its entries and their size."""
_libc = ctypes.CDLL(None, use_errno=True)


class CommandIptables:
    """The kernel's `Iptables` of the namespace at `netns`, or of this process's own.

    `nft` is a handle on the same namespace: it is told that what is committed here is not a stranger's edit.
    """

    def __init__(self, nft: LibNft, netns: Path | None = None) -> None:
        self._nft, self._netns = nft, netns
        self._enter = ["nsenter", f"--net={netns}"] if netns else []
        self._sizes: list[tuple[int, int]] | None = None

    def restore(self, script: str) -> None:
        """`iptables-restore --noflush`: each table of the script in one transaction, or KernelError with the line that
        was refused, and none of that table and those behind it.

        `errno` is EMSGSIZE where the transaction is too large for this user's socket buffer.
        """
        argv = [*self._enter, "iptables-restore", "--noflush", "-w", "5"]
        if log.isEnabledFor(logging.INFO):
            log.info("%s <<'EOF'\n%s\nEOF", shlex.join(argv), _shortened(script))
        with self._nft.counting(script.count("\nCOMMIT")):
            try:
                self._run(argv, script)
            except CommandFailed as error:
                raise _refusal(str(error), script) from None
            finally:
                self._sizes = self._legacy_sizes()

    def save(self, table: str) -> str:
        """`iptables-save -c -t TABLE`; empty, and nothing is run, where nobody has ever used that table."""
        if not self._is_used(table):
            return ""
        try:
            return self._run([*self._enter, "iptables-save", "-c", "-t", table])
        except CommandFailed as error:
            raise _refusal(str(error), "") from None

    def recent(self, name: str) -> list[str]:
        """The addresses that `-m recent --name NAME` remembers; none where there is no such list."""
        path = Path("/proc/thread-self/net/xt_recent") / name
        try:
            listed = self._inside(path.read_text)
        except (FileNotFoundError, PermissionError):
            return []
        return re.findall(r"src=(\S+)", listed)

    def was_edited(self) -> bool:
        """Whether anybody else has committed a transaction in this namespace since the last call of this method.

        Of the legacy variant it compares the number and size of the rules, so a rule exchanged for one of the same size
        goes unnoticed.
        """
        sizes, before = self._legacy_sizes(), self._sizes
        self._sizes = sizes
        return self._nft.was_edited() or (before is not None and sizes != before)

    def _is_used(self, table: str) -> bool:
        """By either variant. What one of them has made, the other does not see."""
        try:
            legacy = self._inside(_LEGACY_TABLES.read_text).split()
        except FileNotFoundError:
            legacy = []
        return table in legacy or f"table ip {table} {{" in self._nft.list("chains ip")

    @cached_property
    def _is_legacy(self) -> bool:
        return "legacy" in shell.run(["iptables-restore", "--version"])

    def _run(self, argv: Sequence[str], script: str | None = None) -> str:
        return shell.run(argv, stdin=script, timeout_s=_TIMEOUT_S, env={**os.environ, **_lock()})

    def _legacy_sizes(self) -> list[tuple[int, int]]:
        """Of each table. Only asked of the legacy variant: the question makes its tables."""
        return [self._inside(partial(_size, table)) for table in TABLES] if self._is_legacy else []

    def _inside(self, work: Callable[[], T]) -> T:
        return namespaces.inside(self._netns, work) if self._netns else work()


def _size(table: str) -> tuple[int, int]:
    """Number and bytes of a legacy table's entries; nothing where the kernel has no such table."""
    info = ctypes.create_string_buffer(table.encode(), _INFO.size)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        length = ctypes.c_uint(_INFO.size)
        if _libc.getsockopt(sock.fileno(), socket.SOL_IP, _IPT_SO_GET_INFO, info, ctypes.byref(length)):
            return (0, 0)
    entries, size = _INFO.unpack(info.raw)[-2:]
    return (entries, size)


def _lock() -> dict[str, str]:
    """Where the legacy variant locks, for a user who may not do it where everybody does."""
    if os.access(_LOCK if _LOCK.exists() else _LOCK.parent, os.W_OK):
        return {}
    return {"XTABLES_LOCKFILE": str(Path(tempfile.gettempdir()) / f"xtables-{os.getuid()}.lock")}


def _refusal(said: str, script: str) -> KernelError:
    """With the line of the script, and with the errno, which the program says only in words."""
    line = _LINE.search(said)
    lines = script.splitlines()
    shown = f": {lines[int(line[1]) - 1]}" if line and int(line[1]) <= len(lines) else ""
    return KernelError(said + shown, next((each for each in _KNOWN if os.strerror(each) in said), 0))


def _shortened(script: str) -> str:
    lines = script.strip().splitlines()
    more = [f"# … and {len(lines) - _SHOWN_LINES} lines more"] if len(lines) > _SHOWN_LINES else []
    return "\n".join([*lines[:_SHOWN_LINES], *more])
