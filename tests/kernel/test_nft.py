"""Rules of a namespace through libnftables."""

from __future__ import annotations

import errno

import pytest

from testbed.errors import KernelError
from tests.kernel.lab import Lab

TABLE = "add table ip tb-c\nadd set ip tb-c s { type ipv4_addr; }\n"


def test_a_script_is_loaded_into_the_handles_own_namespace(lab: Lab) -> None:
    here, there = lab.nft("tb-c-here"), lab.nft("tb-c-there")
    here.load(TABLE)
    assert "set s" in here.list("table ip tb-c")
    assert there.list() == ""
    assert there.list("table ip tb-c") == ""


def test_a_script_with_a_mistake_loads_nothing_and_is_answered_in_nfts_own_words(lab: Lab) -> None:
    nft = lab.nft("tb-c-here")
    with pytest.raises(KernelError, match="syntax error"):
        nft.load(TABLE + "add set ip tb-c")
    with pytest.raises(KernelError, match="No such file or directory") as raised:
        nft.load(TABLE + "delete element ip tb-c s { 192.0.2.1 }")
    assert raised.value.errno == errno.ENOENT
    assert nft.list() == ""


def test_an_edit_by_somebody_else_is_noticed_once_and_our_own_loads_never(lab: Lab) -> None:
    ours, theirs = lab.nft("tb-c-here"), lab.nft("tb-c-here")
    ours.load(TABLE)
    assert not ours.was_edited()
    theirs.load("add element ip tb-c s { 192.0.2.1 }")
    ours.load("add element ip tb-c s { 192.0.2.2 }")
    assert ours.was_edited()
    assert not ours.was_edited()
    theirs.load("flush ruleset")
    assert ours.was_edited()


def test_a_handle_that_was_closed_says_so_to_a_thread_that_comes_late(lab: Lab) -> None:
    nft = lab.nft("tb-c-node")
    nft.close()
    for use in (lambda: nft.load("table ip t"), nft.list, nft.was_edited):
        with pytest.raises(KernelError) as raised:
            use()
        assert raised.value.errno == errno.EBADF
