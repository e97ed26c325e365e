"""Which CPU the client has, and which the server. Unpinned figures are not published (MEASUREMENT.md, 2)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Placement:
    """`cross-cpu`: what a user sees. `same-cpu`: cost, with the tightest interval. The two are never mixed."""

    name: str
    client: int
    server: int

    @property
    def cpus(self) -> tuple[int, ...]:
        """Both, each once."""
        return tuple(sorted({self.client, self.server}))


def choose(cores: Sequence[Sequence[int]]) -> Placement:
    """Client and server on two cores, not on two threads of one; on the only one where there is just one.

    `cores` lists the CPUs of each physical core. The last cores are taken: CPU 0 is where a machine handles most of
    its interrupts.
    """
    firsts = [core[0] for core in cores]
    if len(firsts) == 1:
        return Placement("same-cpu", firsts[0], firsts[0])
    return Placement("cross-cpu", firsts[-2], firsts[-1])


def cores(allowed: Iterable[int] | None = None) -> list[list[int]]:
    """The CPUs of this machine that this process may use, by physical core."""
    usable = set(os.sched_getaffinity(0) if allowed is None else allowed)
    siblings = {cpu: _siblings(cpu) for cpu in sorted(usable)}
    groups = {min(threads & usable): sorted(threads & usable) for threads in siblings.values()}
    return [groups[first] for first in sorted(groups)]


def _siblings(cpu: int) -> set[int]:
    file = TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    return parse_cpu_list(file.read_text()) if file.is_file() else {cpu}


def parse_cpu_list(text: str) -> set[int]:
    """`0,2-3` as the kernel writes it (cpuset(7), "List format")."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus
