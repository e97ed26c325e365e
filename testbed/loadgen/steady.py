"""When is warm-up over? MSER (White 1997): drop the beginning whose loss narrows the mean's standard error most."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

LEAST_BATCHES = 5


def truncation(batches: Sequence[float]) -> int:
    """How many leading batches MSER drops: the argument of the least variance / remaining count, up to half of all."""

    def marginal_error(dropped: int) -> float:
        rest = batches[dropped:]
        mean = fmean(rest)
        return sum((value - mean) ** 2 for value in rest) / len(rest) ** 2

    return min(range(len(batches) // 2 + 1), key=marginal_error)


def is_steady(batches: Sequence[float]) -> bool:
    """Whether the second half needs no truncation: MSER's minimum lies before the middle (the usual criterion)."""
    return len(batches) >= LEAST_BATCHES and truncation(batches) < len(batches) // 2
