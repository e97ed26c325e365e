"""Logs: from the end, and while they grow."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed.agent.follow import FollowedLog, tail_offset

SOON_S = 5


class Writer:
    """A program that is writing a log; readable when it has ended."""

    def __init__(self, log: Path) -> None:
        self.log = log
        log.touch()
        self._ended, self._running = os.pipe()

    def write(self, text: bytes) -> None:
        with self.log.open("ab") as file:
            file.write(text)

    def end(self) -> None:
        os.close(self._running)

    def fileno(self) -> int:
        return self._ended

    def close(self) -> None:
        os.close(self._ended)


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"), (b"a\nb\nc", 2, b"b\nc"), (b"a\nb\n", 5, b"a\nb\n"), (b"", 3, b""),
        (b"a\nb\n", 0, b""), (b"\n\n\n", 1, b"\n"),
    ],
)  # fmt: skip
def test_a_tail_starts_that_many_lines_before_the_end(
    tmp_path: Path, content: bytes, lines: int, expected: bytes
) -> None:
    log = tmp_path / "log"
    log.write_bytes(content)
    assert content[tail_offset(log, lines) :] == expected


def test_a_followed_log_is_read_as_it_is_written_until_its_writer_ends(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "log")
    log = FollowedLog(writer.log, 0, writer)
    with ThreadPoolExecutor(1) as reader:
        for text in (b"one\n", b"two\n"):
            waiting = reader.submit(log.read, 100)
            writer.write(text)
            assert waiting.result(SOON_S) == text
        writer.write(b"last words")
        writer.end()
        assert reader.submit(log.read, 100).result(SOON_S) == b"last words"
        assert reader.submit(log.read, 100).result(SOON_S) == b""


def test_closing_a_followed_log_ends_a_read_that_waits(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "log")
    log = FollowedLog(writer.log, 0, writer)
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(log.read, 100)
        log.close()
        assert waiting.result(SOON_S) == b""
    writer.end()
