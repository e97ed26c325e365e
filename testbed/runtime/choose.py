"""Which runtime: the one the topology names, the one a cluster runs on already, or docker where an engine answers."""

from __future__ import annotations

import importlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from testbed.agent.docker_names import CLUSTER_LABEL
from testbed.errors import BadInput, MachineLacks
from testbed.runtime.protocol import Runtime

RUNTIMES = {
    "netns": ("testbed.runtime.netns", "NetnsRuntime"),
    "docker": ("testbed.runtime.docker", "DockerRuntime"),
}
"""Where each runtime is; importing the docker SDK takes longer than many a command."""
DEFAULT_DOCKER_SOCKET = "/var/run/docker.sock"
PING_TIMEOUT_S = 2


@dataclass(frozen=True)
class Choice:
    """A runtime, and the reason why it is this one."""

    runtime: Runtime
    why: str


@dataclass(frozen=True)
class Cluster:
    """A cluster that exists on this machine, and where."""

    name: str
    runtime: Runtime


def runtime(name: str) -> Runtime:
    """The runtime `docker` or `netns`; MachineLacks where its library or engine is not there."""
    module, cls = RUNTIMES[name]
    made: Runtime = getattr(importlib.import_module(module), cls)()
    return made


def choose(wanted: str, cluster: str) -> Choice:
    """The runtime for `cluster`: `wanted` is auto, docker or netns.

    A cluster that exists stays where it is. MachineLacks where docker is wanted and no engine answers, BadInput where
    the cluster runs on another runtime than the one wanted.
    """
    silence = engine_silence()
    runs_on = _runs_on(cluster, has_engine=not silence)
    if runs_on and wanted not in ("auto", runs_on):
        raise BadInput(
            f"cluster {cluster} runs on {runs_on}, and {wanted} is asked for;"
            f" remove it first with `testbed down {cluster}`"
        )
    if runs_on:
        return Choice(runtime(runs_on), "the cluster is there already")
    if wanted == "docker" and silence:
        raise MachineLacks(f"no Docker engine answers ({silence}); start one, or use the runtime netns")
    if wanted != "auto":
        return Choice(runtime(wanted), "it was asked for")
    if silence:
        return Choice(runtime("netns"), f"no Docker engine answers: {silence}")
    return Choice(runtime("docker"), "a Docker engine answers")


def _runs_on(cluster: str, *, has_engine: bool) -> str:
    """The runtime that has something of the cluster; empty where none has."""
    if has_engine and _is_on_engine(cluster):
        return "docker"
    return "netns" if cluster in runtime("netns").clusters() else ""


def _is_on_engine(cluster: str) -> bool:
    if _is_remote():
        return cluster in runtime("docker").clusters()
    filters = quote(json.dumps({"label": [f"{CLUSTER_LABEL}={cluster}"]}))
    answer = _ask_engine(f"/containers/json?all=1&limit=1&filters={filters}")
    return bool(json.loads(answer.partition(b"\r\n\r\n")[2]))


def existing() -> Iterator[Cluster]:
    """Every cluster that has anything left on this machine; those that are found without an engine come first."""
    for name in RUNTIMES:
        if name != "docker" or not engine_silence():
            found = runtime(name)
            yield from (Cluster(cluster, found) for cluster in found.clusters())


def find(name: str = "") -> Cluster:
    """The cluster of that name, or the only one; BadInput says which there are."""
    found: list[Cluster] = []
    for cluster in existing():
        if cluster.name == name:
            return cluster
        found.append(cluster)
    names = ", ".join(sorted(cluster.name for cluster in found)) or "none"
    if name:
        raise BadInput(f"there is no cluster {name}; up is: {names}")
    if not found:
        raise BadInput("no cluster is up; start one with `testbed up topologies/two-nodes.yaml`")
    if len(found) > 1:
        raise BadInput(f"several clusters are up ({names}); say which one")
    return found[0]


def engine_silence() -> str:
    """Why no Docker engine can be used; empty where one answers. Asks the socket itself, without the SDK."""
    if _is_remote():
        return _remote_silence()
    try:
        answer = _ask_engine("/_ping").partition(b"\r\n")[0].decode(errors="replace")
    except FileNotFoundError:
        return f"there is no {_socket_path()}"
    except PermissionError:
        return f"this user may not open {_socket_path()}; the group docker may"
    except OSError as error:
        return f"{_socket_path()}: {error.strerror or error}"
    return "" if " 200 " in answer else f"{_socket_path()} answers {answer!r}"


def _ask_engine(path: str) -> bytes:
    """The whole answer, headers included, to a GET at this machine's engine; OSError where it cannot be had."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as engine:
        engine.settimeout(PING_TIMEOUT_S)
        engine.connect(_socket_path())
        engine.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        return b"".join(iter(lambda: engine.recv(65536), b""))


def _socket_path() -> str:
    return os.environ.get("DOCKER_HOST", "").removeprefix("unix://") or DEFAULT_DOCKER_SOCKET


def _is_remote() -> bool:
    return not os.environ.get("DOCKER_HOST", "unix://").startswith("unix://")


def _remote_silence() -> str:
    from testbed.agent.docker_engine import connect  # the SDK, which only such an engine needs here

    try:
        connect(timeout_s=PING_TIMEOUT_S).close()
    except MachineLacks as error:
        return str(error)
    return ""
