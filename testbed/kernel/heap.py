"""The C library's heap, kept small."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Let all threads allocate from one heap (mallopt(3)): glibc otherwise keeps a share of memory for each of them.

    Call it before there are threads. Other C libraries have no such call, and no such habit.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_ARENA_MAX, 1)
