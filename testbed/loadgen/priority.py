"""Priority over a machine's other programs: a window then measures the network more and the neighbours less."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from testbed.errors import TimedOut
from testbed.waiting import wait_until

PREFERRED_NICE = -10
"""Nine tenths of a CPU against one ordinary program (sched(7)), which is slowed down and not starved."""
_SESSION_TIMEOUT_S = 3.0


def prefer(pid: int = 0) -> int:
    """Raise the priority of a process (0: this one) where it may (SYS_NICE); the nice value that it then has.

    The kernel shares CPUs out to sessions first, where it groups by session (sched(7), "The autogroup feature"), so
    the process's session is raised too; of the two the weaker value is returned.
    """
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, PREFERRED_NICE)
    session = Path(f"/proc/{pid or 'self'}/autogroup")
    with suppress(OSError, TimedOut):  # no grouping, no leave to change it, or never a turn
        wait_until(lambda: _raised(session), _SESSION_TIMEOUT_S, f"a turn to change {session}", every_s=0.05)
    return max(os.getpriority(os.PRIO_PROCESS, pid), session_nice(session))


def session_nice(session: Path) -> int:
    """The nice value in the text of /proc/PID/autogroup; the best there is where sessions are not grouped."""
    try:
        return int(session.read_text().split()[-1])
    except (OSError, ValueError, IndexError):
        return PREFERRED_NICE


def _raised(session: Path) -> bool:
    """Whether the session could be raised; the kernel takes one such change in 100 ms, from whomever."""
    try:
        session.write_text(str(PREFERRED_NICE))
    except BlockingIOError:
        return False
    return True
