"""Build contexts: what changes an image's tag, and what does not."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from testbed.runtime.images_context import ContextFile, digest, read_tree, write_context


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "bin/run").write_text("#!/bin/sh\n")
    (tmp_path / "bin/run").chmod(0o755)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/a.pyc").write_bytes(b"compiled")
    return tmp_path


def test_a_tree_is_read_in_order_and_without_what_python_leaves_behind(tree: Path) -> None:
    assert read_tree(tree, "below/") == [
        ContextFile("below/Dockerfile", b"FROM scratch\n"),
        ContextFile("below/bin/run", b"#!/bin/sh\n", is_executable=True),
    ]


def test_the_time_of_a_file_does_not_change_the_tag(tree: Path) -> None:
    before = digest("", read_tree(tree))
    os.utime(tree / "Dockerfile", (1, 1))
    assert digest("", read_tree(tree)) == before


@pytest.mark.parametrize(
    "files",
    [
        [ContextFile("a", b"1"), ContextFile("b", b"")],
        [ContextFile("a", b"2")],
        [ContextFile("b", b"1")],
        [ContextFile("a", b"1", is_executable=True)],
    ],
    ids=["another file", "content", "name", "executable"],
)
def test_whatever_would_be_in_the_image_changes_the_tag(files: list[ContextFile]) -> None:
    assert digest("", files) != digest("", [ContextFile("a", b"1")])


def test_another_parent_changes_the_tag() -> None:
    assert digest("testbed/base:1", []) != digest("testbed/base:2", [])


def test_contents_that_run_into_each_other_are_told_apart() -> None:
    assert digest("", [ContextFile("a", b"b\0c")]) != digest("", [ContextFile("a\0b", b"c")])


def test_the_context_is_the_same_tar_on_every_machine(tree: Path) -> None:
    def packed() -> bytes:
        out = io.BytesIO()
        write_context(out, read_tree(tree), {"libraries": tree / "bin"})
        return out.getvalue()

    first = packed()
    for path in tree.rglob("*"):
        os.utime(path, (1, 1))
    assert packed() == first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert {member.name: member.mode & 0o100 for member in tar if member.isfile()} == {
            "Dockerfile": 0,
            "bin/run": 0o100,
            "libraries/run": 0o100,
        }
