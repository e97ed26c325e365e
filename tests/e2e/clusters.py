"""Clusters of the tests' own: copies of the files in topologies/ under other names, brought up by the real command."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.client.http import HttpClient
from tests.e2e.command import Ran, cli
from tests.e2e.machine import Machine, assert_nothing_left, has_docker
from tests.tiers import SLOWNESS

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGIES = ROOT / "topologies"
UP_S = 180 * SLOWNESS
"""A bound, not a target: the first `up` on docker may build images."""
DOWN_S = 60 * SLOWNESS


def why_not(runtime: str) -> str:
    """Why this runtime cannot be tested here; empty where it can."""
    return "no Docker engine answers" if runtime == "docker" and not has_docker() else ""


def unique(name: str) -> str:
    """A cluster name that no other test run on this machine has at the same time."""
    return f"{name}-{os.getpid()}"


def write_topology(source: Path, directory: Path, *, name: str, runtime: str, **settings: Any) -> Path:
    """A copy of the topology `source` with another name and runtime, in `directory`.

    `settings` replaces values of `spec`: `network__backend="host-gw"`. Its manifests stay where they are.
    """
    doc = yaml.safe_load(source.read_text())
    doc["metadata"]["name"] = name
    spec = doc["spec"]
    spec["runtime"] = runtime
    spec["manifests"] = [str((source.parent / manifest).resolve()) for manifest in spec.get("manifests", [])]
    for path, value in settings.items():
        *steps, last = path.split("__")
        place = spec
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = value
    file = directory / f"{name}.yaml"
    file.write_text(yaml.safe_dump(doc, sort_keys=False))
    return file


@dataclass(frozen=True)
class Cluster:
    """A cluster by its file, and the machine as it was before."""

    name: str
    runtime: str
    file: Path
    before: Machine
    env: Mapping[str, str]

    @classmethod
    def of(cls, source: Path, directory: Path, runtime: str, *, name: str = "", **settings: Any) -> Cluster:
        """A cluster like `source`; nothing is started yet."""
        name = name or unique(f"e-{source.stem}-{runtime}")
        file = write_topology(source, directory, name=name, runtime=runtime, **settings)
        return cls(name, runtime, file, Machine.seen_now(), {})

    def up(self, timeout_s: float = UP_S) -> Ran:
        """`testbed up FILE`, whatever comes of it."""
        return cli("up", self.file, timeout_s=timeout_s, env=self.env)

    def down(self, timeout_s: float = DOWN_S) -> Ran:
        """`testbed down NAME`, whatever comes of it."""
        return cli("down", self.name, timeout_s=timeout_s, env=self.env)

    def end(self) -> None:
        """Down, if there is anything to take down, and a look of our own that nothing is left."""
        ended = self.down()
        if "there is no cluster" not in ended.stderr:
            ended.expect()
        assert_nothing_left(self.name, self.before)

    def set(self, **settings: Any) -> None:
        """Change the file as `write_topology` does; the cluster follows at the next `up`."""
        write_topology(self.file, self.file.parent, name=self.name, runtime=self.runtime, **settings)

    def kubeconfig(self) -> str:
        """The text of `testbed kubeconfig NAME`."""
        return cli("kubeconfig", self.name, env=self.env).expect().stdout

    def client(self) -> HttpClient:
        """A client made from the kubeconfig alone, as a stranger's would be."""
        return client_from(self.kubeconfig())


@contextmanager
def cluster_of(source: Path, runtime: str, directory: Path, **settings: Any) -> Iterator[Cluster]:
    """A cluster like `source` for one test, not yet up. Whatever happens to it, it is taken down and leaves nothing.

    Skips the test where the runtime cannot be had.
    """
    if reason := why_not(runtime):
        pytest.skip(reason)
    cluster = Cluster.of(source, directory, runtime, **settings)
    try:
        yield cluster
    finally:
        cluster.end()


def client_from(kubeconfig: str) -> HttpClient:
    """A client of the current context: server, CA and a bearer token."""
    doc = yaml.safe_load(kubeconfig)
    context = _named(doc["contexts"], doc["current-context"])["context"]
    cluster = _named(doc["clusters"], context["cluster"])["cluster"]
    user = _named(doc["users"], context["user"])["user"]
    ca = cluster.get("certificate-authority-data")
    if file := cluster.get("certificate-authority"):
        ca = base64.b64encode(Path(file).read_bytes())
    return HttpClient(cluster["server"], user.get("token", ""), base64.b64decode(ca) if ca else None)


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)
