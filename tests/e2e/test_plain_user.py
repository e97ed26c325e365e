"""A user without any privilege: up, everybody reaches everybody, down, nothing left."""

from __future__ import annotations

import asyncio
import os
import pwd
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.clusters import ROOT, TOPOLOGIES, client_from, unique, write_topology
from tests.e2e.command import Ran, run
from tests.e2e.machine import Machine, assert_nothing_left
from tests.e2e.reach import everybody_reaches_everybody

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make an account for the test")


@dataclass(frozen=True)
class Account:
    """A user of this machine with a testbed of his own."""

    name: str
    home: Path
    python: Path

    def testbed(self, *args: str, timeout_s: float = 120) -> Ran:
        """`testbed ARGS` as this user, in a login environment."""
        words = [str(self.python), "-m", "testbed.cli", *args]
        return run("su", "-", self.name, "-s", "/bin/sh", "-c", shlex.join(words), timeout_s=timeout_s)


@pytest.fixture
def account() -> Iterator[Account]:
    """A user with an environment of his own: root's interpreter may lie where nobody else may look."""
    name = f"tb{os.getpid()}"
    run("useradd", "--create-home", "--user-group", name).expect()
    try:
        home = Path(pwd.getpwnam(name).pw_dir)
        yield Account(name, home, _environment(home, name))
    finally:
        run("userdel", "--remove", name)


def _environment(home: Path, user: str) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = shutil.which(version, path="/usr/bin:/bin:/usr/local/bin")
    if interpreter is None:
        pytest.skip(f"there is no {version} that a plain user may run")
    run(interpreter, "-m", "venv", "--without-pip", home / "env").expect()
    packages = home / "env/lib" / version / "site-packages"
    (packages / "testbed.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    run("chown", "--recursive", f"{user}:", home / "env").expect()
    return home / "env/bin/python3"


def test_a_plain_user_needs_no_privilege(account: Account) -> None:
    before = Machine.seen_now()
    name = unique("e-plain")
    file = write_topology(TOPOLOGIES / "two-nodes.yaml", account.home, name=name, runtime="netns")
    try:
        account.testbed("up", str(file)).expect()
        kubeconfig = account.testbed("kubeconfig", name).expect().stdout

        async def reach() -> int:
            async with client_from(kubeconfig) as client:
                return await everybody_reaches_everybody(client)

        assert asyncio.run(reach()) > 0
        account.testbed(
            "exec", "--cluster", name, "deployment/netexec", "--", "netexec", "connect", "127.0.0.1:8080"
        ).expect()
    finally:
        account.testbed("down", name).expect()
    assert_nothing_left(name, before)
