"""In which order the variants of each round are measured: rows of a balanced Latin square (Williams 1949).

Every row is one round. Over all rows of the square each variant stands equally often in each position, and equally
often right behind each other one, so that neither a drift of the machine nor the heat that a variant leaves behind
favours any. Two variants are three entries, since the baseline always runs once more as its own control; an ABBA order
would measure the other variant twice for each of them, so the square is used there too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

CONTROL = "A/A"
"""The name of the baseline's second measurement in each round. No variant can be called so."""


def williams(size: int) -> list[list[int]]:
    """The rows of a balanced Latin square: `size` of them for an even size, twice as many for an odd one."""
    first = [0]
    for step in range(1, size):
        first.append((step + 1) // 2 if step % 2 else size - step // 2)
    rows = [[(entry + shift) % size for entry in first] for shift in range(size)]
    return rows if size % 2 == 0 else rows + [row[::-1] for row in rows]


def rounds(entries: Sequence[str], seed: int) -> Iterator[tuple[str, ...]]:
    """The order of every round, without end: all rows of the square, shuffled anew each time they are used up."""
    chance = random.Random(seed)  # noqa: S311 - an order that can be repeated, not a secret
    rows = williams(len(entries))
    while True:
        chance.shuffle(rows)
        for row in rows:
            yield tuple(entries[index] for index in row)
