"""Entering a namespace, and coming back."""

import os
from pathlib import Path

import pytest

from testbed.errors import KernelError
from testbed.kernel import netns
from tests.kernel.lab import Lab

OWN = Path("/proc/thread-self/ns/net")


def test_work_is_done_in_the_namespace_and_the_thread_comes_back(lab: Lab) -> None:
    before = OWN.stat().st_ino
    place = lab.place("tb-c-here")
    assert netns.inside(place, lambda: OWN.stat().st_ino) == place.stat().st_ino != before
    assert OWN.stat().st_ino == before


def test_the_thread_comes_back_also_when_the_work_fails(lab: Lab) -> None:
    before = OWN.stat().st_ino
    with pytest.raises(ZeroDivisionError):
        netns.inside(lab.place("tb-c-here"), lambda: 1 // 0)
    assert OWN.stat().st_ino == before


def test_a_namespace_within_a_namespace_is_left_again(lab: Lab) -> None:
    outer, inner = lab.place("tb-c-outer"), lab.place("tb-c-inner")

    def work() -> tuple[int, int]:
        return netns.inside(inner, lambda: OWN.stat().st_ino), OWN.stat().st_ino

    assert netns.inside(outer, work) == (inner.stat().st_ino, outer.stat().st_ino)


def test_a_namespace_is_made_once_and_deleting_it_again_is_fine(lab: Lab, tmp_path: Path) -> None:
    lab.place("tb-c-here")
    path = tmp_path / "tb-c-made"
    netns.create(path)
    made = path.stat().st_ino
    netns.create(path)
    assert path.stat().st_ino == made
    netns.delete(path)
    netns.delete(path)
    assert not path.exists()


def test_a_namespace_that_is_not_there_is_an_error_and_nothing_moves(tmp_path: Path) -> None:
    before = OWN.stat().st_ino
    with pytest.raises(KernelError, match="nowhere: No such file"):
        netns.inside(tmp_path / "nowhere", os.getpid)
    assert OWN.stat().st_ino == before
