"""The order of rounds."""

from collections import Counter
from itertools import islice, pairwise

import pytest

from testbed.compare.schedule import rounds, williams


@pytest.mark.parametrize("size", range(2, 9))
def test_every_entry_stands_equally_often_in_every_place(size: int) -> None:
    rows = williams(size)
    places = Counter((entry, position) for row in rows for position, entry in enumerate(row))
    assert set(places.values()) == {len(rows) // size}
    assert len(places) == size * size


@pytest.mark.parametrize("size", range(2, 9))
def test_every_entry_follows_every_other_equally_often(size: int) -> None:
    followers = Counter(pair for row in williams(size) for pair in pairwise(row))
    assert len(set(followers.values())) == 1
    assert len(followers) == size * (size - 1)


def test_a_seed_repeats_the_order_and_another_changes_it() -> None:
    entries = ["host", "vxlan", "host-gw", "A/A"]
    first, again, other = (list(islice(rounds(entries, seed), 12)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_round_holds_every_entry_once() -> None:
    for order in islice(rounds(["a", "b", "c"], 5), 20):
        assert sorted(order) == ["a", "b", "c"]
