"""Which processes serve an address, and what CPU time they have used: the server's role in a figure per request.

A socket that listens is found in its namespace's table (/proc/PID/net/tcp) by port, and there by its inode among the
files that a process holds open. The time is the scheduler's own, in nanoseconds (/proc/PID/task/TID/schedstat); it
includes the packets that the kernel handles on the process's behalf before returning to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path

PROC = Path("/proc")
_LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h
_LOCAL = "host LOCAL"
_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


def serving(address: IPv4Address, port: int) -> list[int]:
    """The processes that listen on `port` in a namespace whose own address is `address`, as far as they are visible."""
    inodes_of: dict[str, set[str]] = {}
    found = []
    for process in _processes():
        try:
            namespace = str((process / "ns/net").readlink())
            if namespace not in inodes_of:
                inodes_of[namespace] = _listening(process, address, port)
            if inodes_of[namespace] and inodes_of[namespace] & set(_sockets(process)):
                found.append(int(process.name))
        except OSError:
            continue  # it has ended, or belongs to somebody else
    return found


def cpu_us(pids: Iterable[int]) -> int:
    """CPU time so far of the threads that those processes have now, in µs; what has ended counts nothing."""
    return sum(_cpu_us(PROC / str(pid)) for pid in pids)


def listening_inodes(table: str, port: int) -> set[str]:
    """The inodes of sockets that listen on `port`; `table` is the text of /proc/net/tcp (proc(5))."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port}


def has_address(trie: str, address: IPv4Address) -> bool:
    """Whether `address` is the namespace's own; `trie` is the text of /proc/net/fib_trie."""
    lines = trie.splitlines()
    return any(line.strip() == f"|-- {address}" and _LOCAL in following for line, following in pairwise(lines))


def _processes() -> Iterator[Path]:
    return (entry for entry in PROC.iterdir() if entry.name.isdigit())


def _listening(process: Path, address: IPv4Address, port: int) -> set[str]:
    if not has_address((process / "net/fib_trie").read_text(), address):
        return set()
    tables = [process / "net" / name for name in ("tcp", "tcp6")]
    return {inode for table in tables if table.exists() for inode in listening_inodes(table.read_text(), port)}


def _sockets(process: Path) -> Iterator[str]:
    for descriptor in (process / "fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def _cpu_us(process: Path) -> int:
    try:
        threads = list((process / "task").iterdir())
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) // 1000
    except FileNotFoundError:
        return _ticks_us(process)  # a kernel without scheduler statistics, or the process has ended
    except OSError:
        return 0


def _ticks_us(process: Path) -> int:
    try:
        columns = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(columns[11]) + int(columns[12])) * _TICK_US
