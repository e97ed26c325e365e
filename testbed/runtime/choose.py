"""Which runtime: the one the topology names, the one a cluster runs on already, or docker where an engine answers."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from testbed.errors import BadInput, MachineLacks
from testbed.runtime.protocol import Runtime

RUNTIMES = {
    "netns": ("testbed.runtime.netns", "NetnsRuntime"),
    "docker": ("testbed.runtime.docker", "DockerRuntime"),
}
"""Where each runtime is; importing the docker SDK takes longer than many a command."""
DEFAULT_DOCKER_SOCKET = "/var/run/docker.sock"
PING_TIMEOUT_S = 2.0


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
    for found in existing():
        if found.name == cluster and wanted not in ("auto", found.runtime.name):
            raise BadInput(
                f"cluster {cluster} runs on {found.runtime.name}, and {wanted} is asked for;"
                f" remove it first with `testbed down {cluster}`"
            )
        if found.name == cluster:
            return Choice(found.runtime, "the cluster is there already")
    silence = engine_silence()
    if wanted == "docker" and silence:
        raise MachineLacks(f"no Docker engine answers ({silence}); start one, or use the runtime netns")
    if wanted != "auto":
        return Choice(runtime(wanted), "it was asked for")
    if silence:
        return Choice(runtime("netns"), f"no Docker engine answers: {silence}")
    return Choice(runtime("docker"), "a Docker engine answers")


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
    host = os.environ.get("DOCKER_HOST", "")
    if host and not host.startswith("unix://"):
        return _remote_silence(host)
    path = host.removeprefix("unix://") or DEFAULT_DOCKER_SOCKET
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as engine:
            engine.settimeout(PING_TIMEOUT_S)
            engine.connect(path)
            engine.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            answer = engine.recv(100).partition(b"\r\n")[0].decode(errors="replace")
    except FileNotFoundError:
        return f"there is no {path}"
    except PermissionError:
        return f"this user may not open {path}; the group docker may"
    except OSError as error:
        return f"{path}: {error.strerror or error}"
    return "" if " 200 " in answer else f"{path} answers {answer!r}"


def _remote_silence(host: str) -> str:
    from testbed.agent.docker_engine import connect  # the SDK, which only such an engine needs here

    try:
        connect(host, timeout_s=PING_TIMEOUT_S).close()
    except MachineLacks as error:
        return str(error)
    return ""
