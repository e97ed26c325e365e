"""What this machine has and lacks for a testbed, and how to mend it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import CommandFailed, MachineLacks
from testbed.runtime.anchors import USER_NAMESPACES
from testbed.runtime.capabilities import probed
from testbed.runtime.choose import engine_silence

NETNS, DOCKER, BOTH = "netns", "docker", "docker and netns"
LEAST_CORES = 2
PROTOCOLS = Path("/etc/protocols")
"""By which libnftables says `tcp` and not `6`, when rules are read back and compared."""
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `need` says what it is for; empty: nothing of this version."""

    name: str
    is_well: bool
    found: str
    need: str
    fix: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All checks, and for each runtime what stands in its way."""

    checks: tuple[Check, ...]
    runtimes: Mapping[str, str]
    """Runtime → why it cannot be used; empty where it can."""


def examine() -> Diagnosis:
    """Look at everything; changes nothing on the machine."""
    checks = (*_machine(), *_programs(), _engine(), *_kernel())
    runtimes = {
        runtime: "; ".join(f"{check.name}: {check.found}" for check in checks if _stops(check, runtime))
        for runtime in (NETNS, DOCKER)
    }
    return Diagnosis(checks, runtimes)


def _stops(check: Check, runtime: str) -> bool:
    return not check.is_well and check.need in (runtime, BOTH)


def _machine() -> Iterator[Check]:
    python = platform.python_version()
    yield Check("python", sys.version_info >= (3, 11), python, BOTH, "install python3.11 or newer")
    yield Check("kernel", True, f"{platform.release()} {platform.machine()}", BOTH)
    cores = len(os.sched_getaffinity(0))
    fix = "a comparison wants one core for the client and one for the server"
    yield Check("cores", cores >= LEAST_CORES, str(cores), "measuring", "" if cores >= LEAST_CORES else fix)
    missing = sorted(_missing_packages())
    found = f"missing: {', '.join(missing)}" if missing else "complete"
    yield Check("python packages", not missing, found, BOTH, "make setup")


def _missing_packages() -> Iterator[str]:
    """What `pyproject.toml` requires, extras `load` and `report` included, and is not installed."""
    for requirement in importlib.metadata.requires("testbed") or []:
        name = _NAME.match(requirement)
        if name and 'extra == "dev"' not in requirement and not _is_installed(name[0]):
            yield name[0]


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _programs() -> Iterator[Check]:
    for program, need, fix in (
        ("nginx", NETNS, "sudo apt-get install nginx-light, then: sudo systemctl disable --now nginx"),
        ("unshare", NETNS, "sudo apt-get install util-linux"),
        ("knotd", "DNS on netns", "sudo apt-get install knot, then: sudo systemctl disable --now knot"),
        (
            "unbound",
            "forwarded names on netns",
            "sudo apt-get install unbound, then: sudo systemctl disable --now unbound",
        ),
        ("mmdebstrap", "docker without an image registry", "sudo apt-get install mmdebstrap"),
    ):
        path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        yield Check(program, bool(path), path or "not installed", need, "" if path else fix)
    is_there, fix = PROTOCOLS.exists(), "sudo apt-get install netbase"
    yield Check("protocol names", is_there, str(PROTOCOLS) if is_there else f"no {PROTOCOLS}", NETNS, fix)


def _engine() -> Check:
    silence = engine_silence()
    fix = "install docker.io and let this user use it (group docker); the runtime netns needs none"
    return Check("docker engine", not silence, silence or "answers", DOCKER, fix if silence else "")


def _kernel() -> Iterator[Check]:
    """What a scratch namespace shows; without one nothing of it can be known."""
    try:
        reasons = probed()
    except (CommandFailed, MachineLacks) as error:
        reason = str(error).rpartition(": ")[2]
        fix = USER_NAMESPACES.format(reason=reason) if os.geteuid() else "run it where namespaces are allowed"
        yield Check("namespaces", False, reason, NETNS, fix)
        return
    yield Check("namespaces", True, "as root" if os.geteuid() == 0 else "as a plain user", NETNS)
    for name, reason in reasons.items():
        yield Check(name, not reason, reason or "yes", _NEEDS.get(name, ""), _FIXES.get(name, "") if reason else "")


_NEEDS = {
    **dict.fromkeys(("link veth", "link bridge", "link vxlan", "nftables"), BOTH),
    "overlay": NETNS,
    "iptables": "proxy mode iptables",
    "iptables-restore": "proxy mode iptables on netns",
    "ipvs": "proxy mode ipvs",
}
_FIXES = {
    "nftables": "sudo apt-get install libnftables1; the kernel must have nf_tables (5.13 or newer)",
    "iptables": "sudo modprobe -a nft_compat xt_statistic xt_recent xt_addrtype xt_comment, or a kernel that has them",
    "iptables-restore": "sudo apt-get install iptables",
    "ipvs": "sudo modprobe -a ip_vs ip_vs_rr, or a kernel that has them; other proxy modes do without",
    "overlay": "a kernel of 5.11 or newer mounts overlays in user namespaces; as root: sudo modprobe overlay",
    **{f"link {kind}": f"sudo modprobe {kind}, or a kernel that has it" for kind in ("veth", "bridge", "vxlan")},
}
