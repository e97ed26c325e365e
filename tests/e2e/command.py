"""The real `testbed` command as a subprocess: what a user types, with its time, its output and its exit code."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tiers import SLOWNESS

TESTBED = str(Path(sys.executable).parent / "testbed")


@dataclass(frozen=True)
class Ran:
    """A program that has ended."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float

    def json(self) -> Any:
        """What it printed, parsed."""
        return json.loads(self.stdout)

    def expect(self, code: int = 0) -> Ran:
        """Itself, if it ended with `code`; AssertionError with all that it said otherwise."""
        assert self.code == code, (
            f"{shlex.join(self.argv)} ended with {self.code}, not {code}, after {self.seconds:.1f} s\n"
            f"stdout: {self.stdout[-2000:]}\nstderr: {self.stderr[-3000:]}"
        )
        return self


class Running:
    """A program in a session of its own, so that an overdue one can be ended with all its children."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: str | None = None) -> None:
        self.argv = tuple(argv)
        self._stdin = stdin
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return self._process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Send the program itself a signal."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float) -> Ran:
        """What became of it; one that is overdue is killed, and the AssertionError shows what it had said."""
        try:
            stdout, stderr = self._process.communicate(self._stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            stdout, stderr = self._process.communicate()
            raise AssertionError(
                f"{shlex.join(self.argv)} hung for {timeout_s:g} s\nstdout: {stdout[-4000:]}\nstderr: {stderr[-8000:]}"
            ) from None
        return Ran(self.argv, self._process.returncode, stdout, stderr, time.monotonic() - self._started)


def run(
    *argv: str | Path, timeout_s: float = 60, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> Ran:
    """Run any program to its end."""
    return Running([str(arg) for arg in argv], env=env, stdin=stdin).wait(timeout_s)


def cli(
    *args: str | Path, timeout_s: float = 120 * SLOWNESS, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> Ran:
    """Run `testbed ARGS` to its end."""
    return run(TESTBED, *args, timeout_s=timeout_s, env=env, stdin=stdin)


def start_cli(*args: str | Path, env: Mapping[str, str] | None = None) -> Running:
    """Start `testbed ARGS` and return at once."""
    return Running([TESTBED, *map(str, args)], env=env)
