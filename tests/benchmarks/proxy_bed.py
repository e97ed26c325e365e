"""A node with two pods, a control plane with thousands of Services, and the node daemon: each the process that it is.

Nothing else of a cluster is there: what is measured is the way from a write to the API to the kernel of one node.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from testbed.api.kinds import kind_of
from testbed.api.objects import Object
from testbed.api.wellknown import (
    CLUSTER_CONFIG_MAP,
    ROLE_LABEL,
    SYSTEM_NAMESPACE,
    UNDERLAY_ANNOTATION,
    VTEP_MAC_ANNOTATION,
)
from testbed.apiserver.resources import Resources
from testbed.apiserver.store import Store
from testbed.client.http import HttpClient
from testbed.daemon.control_plane import NAMESPACES
from testbed.network import podlink
from testbed.runtime.bootstrap import write_bootstrap
from testbed.topology.load import load_topology
from testbed.topology.plan import plan
from testbed.topology.spec import ClusterSpec, NodeSpec
from testbed.waiting import wait_until
from tests.benchmarks.proxy_objects import TARGET, addresses, service, slices
from tests.e2e.clusters import TOPOLOGIES
from tests.kernel.lab import Lab

CONNECTS = Path(__file__).with_name("connects.py")
NODE, CLIENT, SERVERS = "node", "client", ("one", "two")
START_S = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What a process has used."""

    cpu_s: float = 0.0
    rss_mb: float = 0.0


class Bed:
    """One node in a lab; see `proxy_bed`."""

    def __init__(self, directory: Path, lab: Lab, mode: str) -> None:
        self.lab, self._directory = lab, directory
        planned = plan(load_topology(TOPOLOGIES / "two-nodes.yaml").model, runtime="netns")
        self._node = replace(planned.nodes[0], proxy=mode)
        self.spec: ClusterSpec = replace(planned, nodes=(self._node,))
        assert self._node.pod_cidr
        self.client_address, *self._servers = (self._node.pod_cidr[at] for at in (2, 3, 4))
        self._make()

    @property
    def node_place(self) -> Path:
        """The node's namespace."""
        return self.lab.place(_place(NODE))

    def server(self, name: str) -> IPv4Address:
        """The address of pod one or two."""
        return self._servers[SERVERS.index(name)]

    @contextmanager
    def control_plane(self) -> Iterator[None]:
        """The API server and its controllers."""
        write_bootstrap(self._directory, self.spec)
        argv = ["control-plane", "--dir", str(self._directory), "--data", str(self._directory / "data")]
        with self._daemon([], [*argv, "--socket", str(self._socket), "--port", "0"], "control-plane.log"):
            wait_until(self._socket.exists, START_S, "the control plane", every_s=0.01)
            yield

    @contextmanager
    def node_daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        """The node's daemon, in the node."""
        argv = ["node-daemon", "--dir", str(self._directory), "--api", f"unix://{self._socket}", "--node", "a"]
        with self._daemon(["nsenter", f"--net={self.node_place}"], argv, "node-daemon.log") as process:
            yield process

    @asynccontextmanager
    async def api(self) -> AsyncIterator[HttpClient]:
        """The control plane's client."""
        token = (self._directory / "token").read_text().strip()
        async with HttpClient(f"unix://{self._socket}", token, (self._directory / "ca.crt").read_bytes()) as client:
            yield client

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Pods one and two tell their names."""
        with ExitStack() as servers:
            for name in SERVERS:
                arguments = ("answer", str(self.server(name)), str(TARGET), name)
                program = servers.enter_context(self.running(CONNECTS, name, *arguments))
                assert program.stdout
                program.stdout.readline()
            yield

    @contextmanager
    def running(self, script: Path, pod: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A program in a pod, until the block ends: it ends with its input."""
        argv = ["nsenter", f"--net={self.lab.place(_place(pod))}", sys.executable, str(script), *arguments]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as program:
            try:
                yield program
            finally:
                assert program.stdin
                program.stdin.close()

    async def fill(self, count: int) -> None:
        """Put the cluster's settings, the Node, and so many Services into the store, before anybody serves it.

        Two endpoints each, where nobody is; the last Service has one, and it is pod one.
        """
        data = self._directory / "data"
        data.mkdir(parents=True)
        with closing(Store.open(data / "store.db")) as store:
            resources = Resources(store, self.spec.services)
            for obj in self._objects(count):
                await resources.create(kind_of(obj), obj["metadata"].get("namespace", ""), obj)

    def _objects(self, count: int) -> Iterator[Object]:
        yield from ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": each}} for each in NAMESPACES)
        yield _settings(self.spec)
        yield _node(self._node)
        for number in range(1, count + 1):
            yield service(number)
            yield from slices(number, [self.server("one")] if number == count else addresses(number, 2))

    @property
    def _socket(self) -> Path:
        return self._directory / "api.sock"

    @contextmanager
    def _daemon(self, prefix: list[str], arguments: list[str], log: str) -> Iterator[subprocess.Popen[bytes]]:
        argv = [*prefix, sys.executable, "-m", "testbed.daemon", *arguments]
        with (self._directory / log).open("ab") as stderr, subprocess.Popen(argv, stderr=stderr) as process:
            try:
                yield process
            finally:
                process.terminate()

    def _make(self) -> None:
        self.lab.plug(_place(NODE), str(self._node.address))
        links = self.lab.links(_place(NODE))
        podlink.ensure_node(links, self._node, self.spec.network)
        # Who knocks before there are rules is turned away, and leaves no flow that would later miss them.
        links.ensure_unreachable(self.spec.services.cidr)
        assert self._node.pod_cidr
        pods = {CLIENT: self.client_address, **{name: self.server(name) for name in SERVERS}}
        for name, address in pods.items():
            podlink.attach(
                links,
                self.lab.place(_place(name)),
                device=f"veth{name}",
                address=address,
                gateway=podlink.gateway(self._node.pod_cidr),
                mtu=self.spec.network.pod_mtu,
            )


@contextmanager
def proxy_bed(mode: str) -> Iterator[Bed]:
    """A bed, cleared away at the end."""
    with tempfile.TemporaryDirectory() as name, closing(Lab(Path(name))) as lab:
        yield Bed(Path(name) / "cluster", lab, mode)


def usage(pid: int) -> Usage:
    """proc(5): utime and stime of the process and its threads, and what of its memory is resident; MB are a million."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return Usage((int(stat[11]) + int(stat[12])) / _TICKS, resident * 1024 / 1e6)


def _settings(spec: ClusterSpec) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CLUSTER_CONFIG_MAP, "namespace": SYSTEM_NAMESPACE},
        "data": {"spec.json": json.dumps(spec.to_json())},
    }


def _node(node: NodeSpec) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {ROLE_LABEL: node.role},
            "annotations": {UNDERLAY_ANNOTATION: str(node.address.ip), VTEP_MAC_ANNOTATION: node.vtep_mac},
        },
        "spec": {"podCIDR": str(node.pod_cidr)},
    }


def _place(name: str) -> str:
    return f"tb-a-{name}"
