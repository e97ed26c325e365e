"""A virtual machine with a full kernel, over this machine's own files: what the kernel here lacks is tested there.

virtme-ng boots Debian's stock kernel in qemu, with the root file system shared read-only (9p), overlays on /etc, /usr,
/var and /tmp, and one directory that is writable on both sides. Inside, `inside.py` is handed one command after the
other. The processor is emulated, because machines that are virtual themselves offer a /dev/kvm that does not work:
everything is 10 to 30 times slower, so this is about behaviour only.
"""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOOT_S = 300.0
"""20 s on an idle machine."""
OFF_S = 20.0
MEMORY = "3G"
SLOWNESS = "8"
"""By which the bounds of tests grow inside."""
CHECKOUT = Path(__file__).resolve().parents[2]
BUILD = "build"
"""Where programs of the checkout write their results; inside, this is a directory of what is shared."""
MODULES = (
    *("ip_vs", "ip_vs_rr", "dummy", "veth", "bridge", "vxlan", "overlay", "nf_conntrack", "nf_conntrack_netlink"),
    *("nf_tables", "nft_chain_nat", "nft_ct", "nft_fib_ipv4", "nft_masq", "nft_nat", "nft_numgen", "nft_reject_ipv4"),
    *("ip_tables", "iptable_nat", "iptable_filter", "xt_statistic", "xt_recent", "xt_MASQUERADE", "xt_conntrack"),
)
_CACHED = "cached"
"""A second way to the same files, mounted with a cache: without it, each import asks this machine for each file. What
is edited while the machine runs may be seen half old, half new."""
_INSIDE = Path(__file__).with_name("inside.py")
_KERNELS = Path("/boot")


class MachineDied(Exception):
    """The virtual machine has ended, or never came up."""


@dataclass(frozen=True)
class Done:
    """A command that has ended inside."""

    code: int
    output: str
    """What it printed, and what it complained about."""


def why_not() -> str:
    """Why no virtual machine can be run here, a sentence; empty where one can. Nothing is ever downloaded."""
    if not shutil.which("qemu-system-x86_64"):
        return "qemu is not installed: apt-get install qemu-system-x86"
    if _vng() is None:
        return "virtme-ng is not installed: pip install virtme-ng"
    if not shutil.which("busybox"):
        return "virtme-ng needs a static busybox: apt-get install busybox-static"
    if kernel() is None:
        return f"{_KERNELS} has no kernel with modules: apt-get install linux-image-amd64"
    return ""


def kernel() -> Path | None:
    """The newest kernel that is installed with its modules."""
    found = [path for path in _KERNELS.glob("vmlinuz-*") if (_modules(path) / "modules.dep").exists()]
    return max(found, key=_version, default=None)


class Machine:
    """One that is running. `shared` is a directory that it may write to as well; not below the checkout's own."""

    def __init__(self, shared: Path) -> None:
        for directory in (CHECKOUT / BUILD, shared / BUILD):
            directory.mkdir(exist_ok=True)
        self._console = shared / "console.log"
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                _command(shared),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                env={**os.environ, "PATH": f"{Path(_vng() or '').parent}:{os.environ['PATH']}"},
                start_new_session=True,
            )
        self._received = b""
        self._answer(BOOT_S)
        for command in (["modprobe", "--all", *MODULES], ["sh", "-ec", _layout(shared)]):
            done = self.run(command, timeout_s=120)
            if done.code:
                raise MachineDied(f"{command[0]} inside the virtual machine: {done.output}")

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Done:
        """Run a program to its end, as root, in the directory of the checkout. It is killed after `timeout_s`.

        MachineDied where the machine has.
        """
        assert self._process.stdin
        request = {"argv": list(argv), "env": {"TESTBED_SLOWNESS": SLOWNESS}, "timeout_s": timeout_s}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._answer(timeout_s + 60)
        return Done(answer["code"], answer["output"])

    def close(self) -> None:
        """Switch it off."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(OFF_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        """The next line that comes from inside, as JSON."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._received:
            self._received += self._receive(deadline)
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _receive(self, deadline: float) -> bytes:
        assert self._process.stdout
        readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(self._process.stdout.fileno(), 1 << 16) if readable else b""
        if not data:
            state = "has ended" if readable else "does not answer"
            said = self._console.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise MachineDied(f"the virtual machine {state}; its console's last words: {said}")
        return data


def _command(shared: Path) -> list[str]:
    return [
        *(str(_vng()), "--run", str(kernel()), "--verbose", "--force-9p", "--disable-kvm"),
        *("--cpus", "2", "--memory", MEMORY, "--cwd", str(CHECKOUT), "--rwdir", str(shared)),
        f"--qemu-opts=-fsdev local,id=cached,path=/,security_model=none,readonly=on,multidevs=remap "
        f"-device virtio-9p-pci,fsdev=cached,mount_tag={_CACHED}",
        *("--", sys.executable, str(_INSIDE)),
    ]


def _layout(shared: Path) -> str:
    """A script that lays the cached files over those that Python and the tests are read from, and what is shared over
    the directory that they write to."""
    places = [os.path.realpath(place) for place in (CHECKOUT, sys.prefix, sys.base_prefix)]
    mounted = "mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose"
    binds = [f"mount --bind /run/{_CACHED}{shlex.quote(place)} {shlex.quote(place)}" for place in places]
    written = f"mount --bind {shlex.quote(str(shared / BUILD))} {shlex.quote(str(CHECKOUT / BUILD))}"
    return "\n".join([f"mkdir -p /run/{_CACHED}", f"{mounted} {_CACHED} /run/{_CACHED}", *binds, written])


def _vng() -> Path | None:
    """Beside this Python, or wherever PATH says."""
    found = shutil.which("vng", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return Path(found) if found else None


def _modules(kernel: Path) -> Path:
    return Path("/lib/modules") / kernel.name.removeprefix("vmlinuz-")


def _version(kernel: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", kernel.name)]
