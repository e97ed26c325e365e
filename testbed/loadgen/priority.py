"""Priority over a machine's other programs: a window then measures the network more and the neighbours less."""

from __future__ import annotations

import os
from contextlib import suppress

PREFERRED_NICE = -10
"""Nine tenths of a CPU against one ordinary program (sched(7)), which is slowed down and not starved."""


def prefer(pid: int = 0) -> int:
    """Raise the priority of a process (0: this one) where this user may; the nice value that it then has."""
    with suppress(PermissionError):  # only root of the first user namespace may
        os.setpriority(os.PRIO_PROCESS, pid, PREFERRED_NICE)
    return os.getpriority(os.PRIO_PROCESS, pid)
