"""Our overlay against the same path wired by hand: one byte each way, interleaved, client and server pinned."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from testbed.api.kinds import POD
from testbed.api.objects import status
from testbed.compare.statistics import paired_ratio
from tests.benchmarks import byhand
from tests.benchmarks.byhand import Wired
from tests.benchmarks.figures import Measured
from tests.conformance import manifests
from tests.e2e.clusters import TOPOLOGIES, Cluster, unique
from tests.e2e.command import run
from tests.e2e.machine import arguments
from tests.e2e.parts import all_parts

RR = Path(__file__).with_name("rr.py")
ROUNDS = 16
WINDOW_S = 0.8
WARM_UP_S = 0.5
ALPHA = 0.05
"""One look, so the whole of it."""
TWO_CPUS, ONE_CPU = (0, 1), (0, 0)
"""Of server and client."""
PORT = 7007


@dataclass(frozen=True)
class Pair:
    """A client that is connected to its server and measures a window when told to."""

    client: subprocess.Popen[str]

    def window(self, seconds: float) -> float:
        """The median round trip in microseconds."""
        assert self.client.stdin
        assert self.client.stdout
        self.client.stdin.write(f"{seconds}\n")
        self.client.stdin.flush()
        return float(self.client.stdout.readline().split()[0])


def over_hand() -> Mapping[str, Measured]:
    """On two CPUs, which is what a user sees, and on one, where the interval is narrow.

    `ip` makes no service rules, and conntrack, which they need, costs every packet; so the path by hand is measured
    once more with our nodes' rules in its nodes: what then remains is the wiring's own.
    """
    with ExitStack() as undo:
        ours = undo.enter_context(_our_pods())
        hand = undo.enter_context(byhand.path(mtu=1450))
        found = {
            "overlay-over-hand": _ratio(ours, hand, TWO_CPUS),
            "overlay-over-hand-one-cpu": _ratio(ours, hand, ONE_CPU),
        }
        for node, by_hand in zip(ours.nodes, hand.nodes, strict=True):
            rules = run("nsenter", f"--net={node}", "nft", "list", "ruleset").expect().stdout
            run("nsenter", f"--net={by_hand}", "nft", "-f", "-", stdin=rules).expect()
        return {**found, "overlay-over-hand-same-rules": _ratio(ours, hand, ONE_CPU)}


def _ratio(ours: Wired, hand: Wired, cpus: tuple[int, int]) -> Measured:
    """Sixteen rounds; who begins alternates. The interval of the ratio is the exact one of order statistics."""
    medians_us: tuple[list[float], list[float]] = ([], [])
    with ExitStack() as undo:
        pairs = [undo.enter_context(_pair(path, cpus)) for path in (ours, hand)]
        for pair in pairs:
            pair.window(WARM_UP_S)
        for number in range(ROUNDS):
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                medians_us[which].append(pairs[which].window(WINDOW_S))
    ratio = paired_ratio(*medians_us, ALPHA)
    how = f"{statistics.median(medians_us[0]):.1f} µs against {statistics.median(medians_us[1]):.1f} µs by hand"
    return Measured(
        ratio.centre, f"{how}; {ROUNDS} rounds of {WINDOW_S} s", (round(ratio.low, 4), round(ratio.high, 4))
    )


def why_not() -> str:
    """It wires namespaces with `ip`, and needs two CPUs."""
    if os.geteuid() != 0:
        return "wiring a path by hand needs root"
    return "" if len(os.sched_getaffinity(0)) > 1 else "it needs a CPU each for client and server"


@contextmanager
def _our_pods() -> Iterator[Wired]:
    """A cluster with one pod on each of two nodes: both namespaces, and the address of the second pod."""
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster.of(TOPOLOGIES / "two-nodes.yaml", Path(directory), "netns", name=unique("b-overlay"))
        cluster.set(manifests=[_manifest(Path(directory))])
        try:
            cluster.up().expect()
            client, server, *nodes = (_netns_of(cluster, pod) for pod in ("pod-a", "pod-b", "node-a", "node-b"))
            yield Wired(client, server, _address_of(cluster, "pod-b"), tuple(nodes))
        finally:
            cluster.down().expect()


def _manifest(directory: Path) -> str:
    """One idle pod per node, and one on its own network; the name is an argument too, by which its process is found."""
    pods = [
        manifests.pod(
            f"{where}-{node}",
            [manifests.container(command=[*manifests.IDLE, f"{where}-{node}"])],
            node=node,
            host_network=where == "node",
        )
        for where in ("pod", "node")
        for node in ("a", "b")
    ]
    file = directory / "pods.yaml"
    file.write_text(yaml.safe_dump_all(pods))
    return str(file)


def _netns_of(cluster: Cluster, pod: str) -> Path:
    pid = next(part.pid for part in all_parts(cluster.name, "netns") if arguments(part.pid)[-1:] == [pod])
    return Path(f"/proc/{pid}/ns/net")


def _address_of(cluster: Cluster, pod: str) -> str:
    async def read() -> str:
        async with cluster.client() as client:
            return str(status(await client.get(POD, pod, "default"))["podIP"])

    return asyncio.run(read())


@contextmanager
def _pair(path: Wired, cpus: tuple[int, int]) -> Iterator[Pair]:
    with ExitStack() as undo:
        for role, where, cpu in (("serve", path.server_netns, cpus[0]), ("measure", path.client_netns, cpus[1])):
            program = [sys.executable, str(RR), role, path.address, str(PORT), str(cpu)]
            argv = ["nsenter", f"--net={where}", *program]
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            undo.enter_context(process)
            undo.callback(process.kill)
            assert process.stdout
            assert process.stdout.readline() == "ready\n", f"{' '.join(argv)} did not begin"
        yield Pair(process)
