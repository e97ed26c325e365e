"""Priority over a machine's other programs: a window then measures the network more and the neighbours less."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PREFERRED_NICE = -10
"""Nine tenths of a CPU against one ordinary program (sched(7)), which is slowed down and not starved."""


def prefer(pid: int = 0) -> int:
    """Raise the priority of a process (0: this one) where it may (SYS_NICE); the nice value that it then has.

    The kernel shares CPUs out to sessions first, where it groups by session (sched(7), "The autogroup feature"), so
    the process's session is raised too.
    """
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, PREFERRED_NICE)
        with suppress(OSError):  # no grouping, or no leave to change it
            Path(f"/proc/{pid or 'self'}/autogroup").write_text(str(PREFERRED_NICE))
    return os.getpriority(os.PRIO_PROCESS, pid)
