"""The anchor of a plain user: the same, in a user namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
PROGRAM = """
import os
from pathlib import Path
from tests.kernel.anchors import running_anchor
with running_anchor() as running:
    directory = str(running.dirs.run / "private")
    root = {"directory": f"{directory}/containers/x", "lower": [], "layers": f"{directory}/images", "mounts": []}
    running.client.run({
        "id": "x", "argv": ["sh", "-c", "id -u; touch /etc/mine /tmp/mine /run/mine && ls /etc/mine"],
        "env": {"PATH": "/usr/bin:/bin"}, "netns": str(running.netns()), "root": root,
        "log": f"{running.dirs.state}/log",
    })
    ended = running.client.wait("x", 10)
    print(os.geteuid(), ended.exit_code, *Path(running.dirs.state, "log").read_text().split())
"""


def interpreter() -> str:
    """A Python that the user nobody may run."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        check = [
            candidate,
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); import testbed, datetime; datetime.UTC",
        ]
        try:
            if (
                subprocess.run(
                    check, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
                ).returncode
                == 0
            ):
                return candidate
        except (OSError, subprocess.SubprocessError):
            continue
    pytest.skip("no Python ≥ 3.11 here that another user may run with this source tree")


@pytest.mark.skipif(os.geteuid() != 0, reason="a plain user's anchor is what all other tests use here")
def test_a_plain_user_has_an_anchor_in_which_it_is_root_and_may_write_where_programs_write() -> None:
    done = subprocess.run(
        [interpreter(), "-c", PROGRAM],
        user=NOBODY, group=NOBODY, extra_groups=[], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/"},
    )  # fmt: skip
    if "does not let a plain user make namespaces" in done.stderr:
        pytest.skip("this machine does not let a plain user make namespaces")
    assert done.stdout.split() == [str(NOBODY), "0", "0", "/etc/mine"], done.stderr
    assert not Path("/etc/mine").exists()
