"""The anchors on this machine: started here, found through /proc by their arguments, ended by a signal.

RUNDIR of a cluster holds the anchor's socket and the control plane's; STATEDIR its bootstrap directory, the API's
store, and logs. Neither is needed to find or end a cluster.
"""

from __future__ import annotations

import json
import math
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import testbed
from testbed import shell
from testbed.agent.anchor_client import AnchorClient
from testbed.agent.anchor_namespaces import PROCESS_NAME
from testbed.agent.images import images_dir
from testbed.errors import MachineLacks, NotFound, TimedOut

START = "import sys; sys.path.insert(0, {path!r}); from testbed.agent.anchor import main; main()"
GONE_WITHIN_S = 30.0
BACKLOG = 1024
NAMESPACE = re.compile(r"(net|mnt|pid|uts|ipc|user|cgroup|time):\[\d+\]")
USER_NAMESPACES = (
    "this machine does not let a plain user make namespaces ({reason}); allow it with "
    "`sudo sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0`, or run as root"
)


@dataclass(frozen=True)
class Dirs:
    """Where a cluster's files lie."""

    run: Path
    state: Path

    @property
    def anchor_socket(self) -> Path:
        """Where the anchor listens."""
        return self.run / "anchor.sock"

    @property
    def api_socket(self) -> Path:
        """Where the API server listens without TLS."""
        return self.run / "api.sock"

    @property
    def log(self) -> Path:
        """What the anchor says when it cannot start."""
        return self.run / "anchor.log"

    @property
    def bootstrap(self) -> Path:
        """See runtime.bootstrap."""
        return self.state / "bootstrap"


@dataclass(frozen=True)
class Anchor:
    """A running anchor: its pid as seen from here, and what its arguments tell."""

    cluster: str
    pid: int
    dirs: Dirs
    """Those that it was started with, whatever the environment says now."""
    port: int
    """Of the API on 127.0.0.1."""
    before_fd: int

    @property
    def before(self) -> str:
        """What `launch` was given to remember, from a file that only the anchor holds; empty where there is none."""
        memory = Path(f"/proc/{self.pid}/fd/{self.before_fd}")
        return memory.read_text(encoding="utf-8") if memory.exists() else ""

    @property
    def client(self) -> AnchorClient:
        """To speak to it."""
        return AnchorClient(self.dirs.anchor_socket)

    def is_mute(self) -> bool:
        """Whether nobody can speak to it any more, because its socket was deleted."""
        try:
            self.client.notes()
        except NotFound:
            return True
        return False


def run_base() -> Path:
    """The parent of every RUNDIR: XDG_RUNTIME_DIR/testbed, /run/testbed for root, /tmp/testbed-UID."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and _is_mine(Path(given)):
        return Path(given) / "testbed"
    return Path("/run/testbed") if os.geteuid() == 0 else Path(f"/tmp/testbed-{os.geteuid()}")  # noqa: S108


def state_base() -> Path:
    """The parent of every STATEDIR."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "testbed"


def dirs(cluster: str) -> Dirs:
    """Where the files of a cluster of that name lie."""
    return Dirs(run_base() / cluster, state_base() / cluster)


def find(cluster: str = "") -> Iterator[Anchor]:
    """The anchors of this user, of one cluster or of all: process 1 of a pid namespace right below ours, and started
    with the arguments of `launch`.
    """
    depth = len(_namespace_pids("self"))
    for pid in _pids():
        anchor = _anchor_of(pid, depth)
        if anchor and cluster in ("", anchor.cluster):
            yield anchor


def _anchor_of(pid: int, depth: int) -> Anchor | None:
    """The anchor that the process is; None for any other, and for one that ends meanwhile."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        if PROCESS_NAME not in arguments or Path(f"/proc/{pid}").stat().st_uid != os.geteuid():
            return None
        pids = _namespace_pids(str(pid))
        if len(pids) != depth + 1 or pids[-1] != 1:
            return None
        cluster, config = arguments[arguments.index(PROCESS_NAME) + 1 :][:2]
        doc = json.loads(config)
        where = Dirs(Path(doc["run_dir"]), Path(doc.get("state_dir", doc["run_dir"])))
        return Anchor(cluster, pid, where, doc.get("port", 0), doc.get("before_fd", -1))
    except (OSError, ValueError, KeyError):
        return None


def launch(cluster: str, where: Dirs, before: str) -> AnchorClient:
    """Start an anchor that remembers `before`, and keeps the API's two sockets, TCP on 127.0.0.1 and Unix.

    They listen from now on, so that who connects early, or while the control plane is being restarted, is served a
    little later instead of being refused. MachineLacks where the machine does not allow it.
    """
    where.run.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not _is_mine(where.run.parent):
        raise MachineLacks(f"{where.run.parent} belongs to another user; set XDG_RUNTIME_DIR to a directory of yours")
    where.run.mkdir(exist_ok=True, mode=0o700)
    with ExitStack() as opened:
        own, plain = (opened.enter_context(_unix(path)) for path in (where.anchor_socket, where.api_socket))
        tls = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=BACKLOG))
        memory = opened.enter_context(os.fdopen(os.memfd_create("testbed-before"), "w"))
        memory.write(before)
        memory.flush()
        package = Path(testbed.__file__).parents[1]
        config = {
            "run_dir": str(where.run),
            "state_dir": str(where.state),
            "port": tls.getsockname()[1],
            "socket_fd": own.fileno(),
            "keep_fds": [tls.fileno(), plain.fileno()],
            "before_fd": memory.fileno(),
            "needed": [sys.prefix, sys.base_prefix, str(package), str(images_dir())],
        }
        argv = [sys.executable, "-I", "-S", "-c", START.format(path=str(package)), PROCESS_NAME, cluster]
        passed = [each.fileno() for each in (own, plain, tls, memory)]
        launcher = shell.start([*argv, json.dumps(config)], output=where.log, pass_fds=passed)
    return _reached(launcher, where)


def _unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(BACKLOG)
    return listener


def _reached(launcher: subprocess.Popen[bytes], where: Dirs) -> AnchorClient:
    """The client, once the anchor answers; its socket has been listening since before it was started."""
    client = AnchorClient(where.anchor_socket)
    try:
        client.notes()
    except NotFound:
        said = where.log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise MachineLacks(USER_NAMESPACES.format(reason=said) if os.geteuid() else said) from None
    finally:
        launcher.wait()
    return client


def end(anchor: Anchor) -> None:
    """Kill the anchor; the kernel then ends all that is in its pid namespace, before the anchor itself is gone."""
    try:
        pidfd = os.pidfd_open(anchor.pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not select.select([pidfd], [], [], GONE_WITHIN_S)[0]:
            raise TimedOut(f"the anchor of {anchor.cluster}, pid {anchor.pid}, is killed and does not end")
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def describe(anchor: Anchor) -> str:
    """What ends with it."""
    kept = sum(link.startswith("net:[") for link in _links(f"/proc/{anchor.pid}/fd"))
    return f"anchor {anchor.pid} with {len(_members(anchor)) - 1} processes and {kept} network namespaces"


def namespaces_of(anchor: Anchor) -> frozenset[str]:
    """Every namespace that its processes are in, or that it keeps, and this process is not in."""
    found = set(_links(f"/proc/{anchor.pid}/fd"))
    for pid in _members(anchor):
        found |= set(_links(f"/proc/{pid}/ns"))
    return frozenset(link for link in found if NAMESPACE.fullmatch(link)) - set(_links("/proc/self/ns"))


def processes_in(namespaces: frozenset[str], started_before_s: float = math.inf) -> list[int]:
    """The pids of all processes that are in any of the namespaces and started before then (CLOCK_BOOTTIME).

    The kernel gives the number of a namespace that is gone to a new one: younger processes are somebody else's.
    """
    return [
        pid
        for pid in _pids()
        if not namespaces.isdisjoint(_links(f"/proc/{pid}/ns")) and _started_s(pid) < started_before_s
    ]


def _members(anchor: Anchor) -> list[int]:
    namespace = _links(f"/proc/{anchor.pid}/ns", "pid")
    return [pid for pid in _pids() if namespace and _links(f"/proc/{pid}/ns", "pid") == namespace]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names are all that is wanted


def _started_s(pid: int) -> float:
    """When a process started, in seconds of CLOCK_BOOTTIME; for ever later where it has ended."""
    try:
        columns = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return math.inf
    return int(columns[19]) / os.sysconf("SC_CLK_TCK")


def _links(directory: str, name: str = "") -> list[str]:
    """What the symlinks in a directory of /proc point to, or the one of that name; none where it may not be seen."""
    try:
        return [os.readlink(f"{directory}/{entry}") for entry in ([name] if name else os.listdir(directory))]  # noqa: PTH115, PTH208
    except OSError:
        return []


def _namespace_pids(pid: str) -> list[int]:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("NSpid:"):
            return [int(number) for number in line.split()[1:]]
    return []


def _is_mine(directory: Path) -> bool:
    try:
        status = directory.stat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
