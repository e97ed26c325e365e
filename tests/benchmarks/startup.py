"""How long a user waits for `testbed up` and `testbed down`, the start of the program included."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.bare import Bare
from tests.benchmarks.figures import Measured, median_of
from tests.e2e.clusters import TOPOLOGIES, Cluster, unique

SMALL, LARGE = TOPOLOGIES / "two-nodes.yaml", TOPOLOGIES / "twenty-nodes.yaml"
"""2 nodes and 6 pods; 20 nodes and 200 pause pods."""


def small_on_namespaces() -> Mapping[str, Measured]:
    """Five times up and down."""
    ups, _ = _up_and_down(SMALL, "netns", 5)
    return {"up-netns": median_of(ups, "s")}


def large_on_namespaces() -> Mapping[str, Measured]:
    """Three times up and down."""
    ups, downs = _up_and_down(LARGE, "netns", 3)
    return {"up-netns-20-nodes": median_of(ups, "s"), "down-netns-20-nodes": median_of(downs, "s")}


def small_on_docker() -> Mapping[str, Measured]:
    """Five rounds: our `up`, then the same containers started by nothing but the engine, then the other way round."""
    ups: list[float] = []
    bares: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        cluster = _cluster(SMALL, "docker", Path(directory))
        try:
            cluster.up().expect()  # not counted: it builds the images
            bare = Bare.of(cluster.name)
        finally:
            cluster.end()
        for round_number in range(5):
            if round_number % 2 == 0:
                ups.append(_timed_up(cluster))
                bares.append(bare.start_all())
            else:
                bares.append(bare.start_all())
                ups.append(_timed_up(cluster))
    return {
        "up-docker": median_of(ups, "s"),
        "up-docker-over-bare": Measured(
            statistics.median(up / alone for up, alone in zip(ups, bares, strict=True)),
            f"{bare.count} containers; bare: {median_of(bares, 's').how}",
        ),
    }


def _up_and_down(topology: Path, runtime: str, times: int) -> tuple[list[float], list[float]]:
    ups, downs = [], []
    with tempfile.TemporaryDirectory() as directory:
        cluster = _cluster(topology, runtime, Path(directory))
        for _ in range(times):
            try:
                ups.append(cluster.up().expect().seconds)
            finally:
                downs.append(cluster.down().expect().seconds)
    return ups, downs


def _timed_up(cluster: Cluster) -> float:
    try:
        return cluster.up().expect().seconds
    finally:
        cluster.down().expect()


def _cluster(topology: Path, runtime: str, directory: Path) -> Cluster:
    return Cluster.of(topology, directory, runtime, name=unique(f"b-{topology.stem}"))
