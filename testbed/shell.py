"""The only place that runs another program. Each call is logged first, as a line that can be pasted into a shell."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.errors import CommandFailed, MachineLacks

log = logging.getLogger(__name__)

SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where programs of the network lie; a plain user's PATH often does without."""


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    timeout_s: float = 60.0,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> str:
    """Run `argv` to its end and return what it printed.

    Raises MachineLacks where the program is not installed and CommandFailed where it fails (unless `check` is off)
    or exceeds `timeout_s`.
    """
    log.info("%s", shlex.join(argv))
    found = dict(os.environ if env is None else env)
    found["PATH"] = f"{found.get('PATH', os.defpath)}:{SYSTEM}"
    try:
        done = subprocess.run(
            list(argv), input=stdin, capture_output=True, text=True, timeout=timeout_s, env=found, check=False
        )
    except FileNotFoundError:
        raise MachineLacks(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{shlex.join(argv)} did not end within {timeout_s:g} s") from None
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip() or "nothing"
        raise CommandFailed(f"{shlex.join(argv)} ended with {done.returncode} and said: {said}")
    return done.stdout


def start(
    argv: Sequence[str], *, output: Path, pass_fds: Sequence[int] = (), env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, its output appended to a file, and do not wait for it."""
    log.info("%s >>%s 2>&1 &", shlex.join(argv), output)
    with output.open("ab") as file:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, pass_fds=pass_fds, env=env, start_new_session=True,
        )  # fmt: skip
