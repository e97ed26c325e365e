"""Runs inside the virtual machine: one command after the other, a line of JSON each way (see `machine.Machine.run`).

    {"argv": [...], "env": {...}, "timeout_s": 60}  →  {"code": 0, "output": "…"}

It needs nothing but the standard library, and little of that: every import is read through an emulated disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HOME = Path("/run/home")
"""The one that root has lies on a read-only file system."""
TIMED_OUT = 124
"""As timeout(1) says it."""


def main() -> None:
    """Until the other side closes its end."""
    HOME.mkdir()
    answer({"code": 0, "output": "ready"})
    for line in sys.stdin:
        answer(run(**json.loads(line)))


def run(argv: list[str], env: dict[str, str], timeout_s: float) -> dict[str, Any]:
    """What becomes of one command."""
    own = {"HOME": str(HOME), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **own, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return {"code": TIMED_OUT, "output": _text(error.stdout) + f"\nkilled after {timeout_s:g} s"}
    except OSError as error:
        return {"code": 127, "output": f"{argv[0]}: {error.strerror}"}
    return {"code": done.returncode, "output": _text(done.stdout)}


def answer(what: dict[str, Any]) -> None:
    """Hand it over at once."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")


if __name__ == "__main__":
    main()
