"""Clusters on bare network namespaces: an anchor process holds everything, and the daemons are processes of it.

    create   socket on 127.0.0.1 ─▶ anchor ─▶ a namespace per node, switch and control plane ─▶ the daemons in them
    delete   kill the anchor: the kernel ends every process, device, route and rule with its namespaces

Nothing is ever made in the machine's own namespaces but the two directories of runtime.anchors.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import testbed
from testbed.agent.anchor_child import KEPT_FD
from testbed.agent.anchor_client import AnchorClient
from testbed.agent.anchor_namespaces import PRIVATE
from testbed.agent.netns_sandbox import place_name
from testbed.errors import NotFound
from testbed.runtime import anchors
from testbed.runtime.anchors import Anchor, Dirs
from testbed.runtime.machine import Machine, compare, settled
from testbed.runtime.protocol import Endpoint, Progress, Removal
from testbed.topology.spec import CONTROL_PLANE, SWITCH, ClusterSpec

SPEC = "spec.json"
PLACE = "place"
"""The label of the namespaces that the runtime makes, beside those of pods."""
HERE = "/proc/1/ns/net"
"""The anchor's own network namespace, which has nothing but `lo`."""
AGENT_CAPABILITIES = ("NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "DAC_OVERRIDE", "CHOWN", "FOWNER")
"""Devices; namespaces of others, entered through /proc; files of pods."""
NODE_DAEMON_CAPABILITIES = ("NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "IPC_LOCK")


class NetnsRuntime:
    """runtime.protocol.Runtime without any container engine."""

    name = "netns"

    def create(self, spec: ClusterSpec, progress: Progress) -> None:
        """Anchor, namespaces and daemons as the spec wants them; what runs already stays.

        MachineLacks where a plain user may not make namespaces.
        """
        for mute in filter(Anchor.is_mute, anchors.find(spec.name)):
            anchors.end(mute)
        found = next(anchors.find(spec.name), None)
        anchor, where = (found.client, found.dirs) if found else (None, anchors.dirs(spec.name))
        with ExitStack() as undo:
            if anchor:
                _restore(anchor, where)
            else:
                undo.callback(self.delete, spec.name, progress)
            progress("making namespaces")
            with ThreadPoolExecutor(1) as beside:
                reached = beside.submit(
                    lambda: anchor or anchors.launch(spec.name, where, Machine.seen_now().to_json())
                )
                _write_directory(where, spec)
                anchor = reached.result()
            _note(anchor, where)
            _fit_places(anchor, spec)
            progress("starting control plane, agent and node daemon")
            _start_daemons(anchor, spec, where)
            undo.pop_all()

    def clusters(self) -> list[str]:
        """Those with an anchor, and those of whose crash only files are left."""
        left = (base.iterdir() for base in (anchors.run_base(), anchors.state_base()) if base.is_dir())
        names = {directory.name for directories in left for directory in directories if directory.is_dir()}
        return sorted(names | {anchor.cluster for anchor in anchors.find()})

    def spec(self, cluster: str) -> ClusterSpec | None:
        """From the anchor, or from the bootstrap directory of one that crashed."""
        texts = [anchor.client.notes().get("files", {}).get(SPEC) for anchor in _speaking(cluster)]
        file = anchors.dirs(cluster).bootstrap / SPEC
        text = next(filter(None, texts), "") or (file.read_text(encoding="utf-8") if file.exists() else "")
        return ClusterSpec.from_json(json.loads(text)) if text else None

    def endpoint(self, cluster: str) -> Endpoint:
        """As the anchor remembers it: no file is needed."""
        for anchor in _speaking(cluster):
            if not (files := anchor.client.notes().get("files")):
                raise NotFound(f"cluster {cluster} is half up; `testbed up` completes it, `testbed down` removes it")
            url, path = f"https://127.0.0.1:{anchor.port}", anchor.dirs.api_socket
            return Endpoint(url, files["token"], files["ca.crt"].encode(), path if path.exists() else None)
        raise NotFound(f"no cluster {cluster} runs on namespaces")

    def delete(self, cluster: str, progress: Progress) -> Removal:
        """Kill the anchor and remove the cluster's directories, then look for anything that is left."""
        progress(f"ending the processes of {cluster}")
        began_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        before: Machine | None = None
        ended: dict[Anchor, frozenset[str]] = {}
        removed: list[str] = []
        for anchor in anchors.find(cluster):
            before = Machine.from_json(anchor.before) if anchor.before else None
            ended[anchor] = anchors.namespaces_of(anchor)
            removed.append(anchors.describe(anchor))
            anchors.end(anchor)
        all_dirs = [anchors.dirs(cluster), *(anchor.dirs for anchor in ended)]
        directories = {directory for dirs in all_dirs for directory in (dirs.run, dirs.state)}
        for directory in sorted(directory for directory in directories if directory.exists()):
            shutil.rmtree(directory)
            removed.append(f"directory {directory}")
            with suppress(OSError):  # there are other clusters
                directory.parent.rmdir()
        progress("comparing the machine with what it was before")
        alive = anchors.processes_in(frozenset().union(*ended.values()), began_s)
        return _proven(removed, ended, alive, directories, before)


def _speaking(cluster: str) -> list[Anchor]:
    return [anchor for anchor in anchors.find(cluster) if not anchor.is_mute()]


def _write_directory(where: Dirs, spec: ClusterSpec) -> None:
    from testbed.runtime.bootstrap import write_bootstrap  # cryptography takes 70 ms, and most commands need none of it

    write_bootstrap(where.bootstrap, spec)


def _note(anchor: AnchorClient, where: Dirs) -> None:
    """Let the anchor remember the bootstrap directory, so that nothing depends on the files."""
    files = {path.name: path.read_text(encoding="utf-8") for path in where.bootstrap.iterdir()}
    anchor.note({"files": files})


def _restore(anchor: AnchorClient, where: Dirs) -> None:
    """Bring back what somebody has deleted: the daemons trust the authority and token that they were started with."""
    where.bootstrap.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, text in anchor.notes().get("files", {}).items():
        file = where.bootstrap / name
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(text, encoding="utf-8")


def _fit_places(anchor: AnchorClient, spec: ClusterSpec) -> None:
    """A namespace for the switch, the control plane and each node, and none for nodes that are no more."""
    wanted = {place_name(spec.name, name) for name in (SWITCH, CONTROL_PLANE, *(node.name for node in spec.nodes))}
    there = {name for name, labels in anchor.netns().items() if PLACE in labels}
    anchor.ensure_netns(sorted(wanted - there), {PLACE: ""})
    anchor.delete_netns(sorted(there - wanted))


def _start_daemons(anchor: AnchorClient, spec: ClusterSpec, where: Dirs) -> None:
    """Those that do not run; the anchor restarts those that die."""
    running = {process.id for process in anchor.list()[0]}
    for plan in _daemons(spec, where):
        if plan["id"] not in running:
            anchor.run(plan)


def _daemons(spec: ClusterSpec, where: Dirs) -> Iterator[dict[str, Any]]:
    netns = where.run / PRIVATE / "netns"
    bootstrap, api = ("--dir", str(where.bootstrap)), ("--api", f"unix://{where.api_socket}")
    control_plane = (*bootstrap, "--data", str(where.state / "data"))
    agent = ("--runtime", "netns", "--anchor", str(where.anchor_socket), "--state", str(where.state))
    daemons = (
        (
            "control-plane",
            netns / place_name(spec.name, CONTROL_PLANE),
            (*control_plane, "--listen-fd", str(KEPT_FD), "--socket-fd", str(KEPT_FD + 1)),
            (),
        ),
        (
            "agent",
            netns / place_name(spec.name, SWITCH),
            (*bootstrap, "--host", spec.hosts[0].name, *agent, *api),
            AGENT_CAPABILITIES,
        ),
        ("node-daemon", Path(HERE), (*bootstrap, *api, "--all", "--netns-dir", str(netns)), NODE_DAEMON_CAPABILITIES),
    )
    for role, namespace, arguments, capabilities in daemons:
        yield {
            "id": role,
            "argv": [sys.executable, "-m", "testbed.daemon", role, *arguments],
            "env": _environment(),
            "cwd": "/",
            "netns": str(namespace),
            "capabilities": list(capabilities),
            "log": str(where.state / "logs" / f"{role}.log"),
            "keep_fds": role == "control-plane",
            "restart": True,
        }


def _environment() -> dict[str, str]:
    package = Path(testbed.__file__).parents[1]
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": str(package)}


def _proven(
    removed: Sequence[str],
    ended: Mapping[Anchor, frozenset[str]],
    alive: Collection[int],
    directories: Collection[Path],
    before: Machine | None,
) -> Removal:
    namespaces = frozenset().union(*ended.values())
    checked = [f"no process is left in its {len(namespaces)} namespaces", f"{len(directories)} directories are gone"]
    leftovers = [f"process {pid} in a namespace of the cluster" for pid in alive]
    leftovers += [f"directory {directory}" for directory in directories if directory.exists()]
    if before is None:
        return Removal(
            tuple(removed),
            (*checked, "what the machine was like before is not known: its anchor is gone"),
            tuple(leftovers),
        )
    comparison = settled(lambda: compare(before, Machine.seen_now()))
    return Removal(tuple(removed), (*checked, *comparison.checked), (*leftovers, *comparison.leftovers))
