"""How many questions does the cluster's DNS answer at 5,000 Services, and how soon does it know of a change?

dnsperf asks from a pod of the other node, through the ClusterIP, for every Service in turn. knotd and it have their own
halves of the processors.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.api.kinds import ENDPOINT_SLICE, POD
from testbed.api.objects import Object, spec
from testbed.client.streams import Channel, ExecStream
from tests.benchmarks.figures import Measured, percentile
from tests.conformance import manifests
from tests.conformance.bed import Bed, Running, Subject
from tests.conformance.dns import HEADLESS
from tests.conformance.manifests import HTTP, Port
from tests.e2e.asking import evaluate
from tests.e2e.clusters import TOPOLOGIES, Cluster, unique
from tests.e2e.machine import arguments
from tests.e2e.parts import Part, all_parts

ASKING = Path(__file__).with_name("asking.py")
COREDNS_RATE = 29_000
"""What CoreDNS answers a second, uncached, at as many Services."""
SERVICES = 5000
AT_ONCE = 32
SECONDS = 10
STEADY_RATE = 1000
CHANGES = 200
PAUSE_S = 0.02
LOADED_S = 60.0
DNS, DOMAIN = "10.96.0.10", "default.svc.cluster.local"


def why_not() -> str:
    """Why it cannot be measured here; empty where it can."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    lacking = [program for program in ("knotd", "dnsperf") if not shutil.which(program, path=path)]
    return f"{' and '.join(lacking)} not installed" if lacking else ""


def measured() -> Mapping[str, Measured]:
    """Figures `dns-rate` (a second), `dns-latency` (ms, mean at a steady rate), `dns-change` (ms, 99th percentile)."""
    with tempfile.TemporaryDirectory() as directory:
        source, name = TOPOLOGIES / "two-nodes.yaml", unique("b-dns")
        cluster = Cluster.of(source, Path(directory), "netns", name=name, dns__server="knot")
        try:
            cluster.up().expect()
            return asyncio.run(_measure(cluster))
        finally:
            cluster.down().expect()


async def _measure(cluster: Cluster) -> Mapping[str, Measured]:
    async with cluster.client() as client:
        bed = Bed(Subject(client, cluster.runtime, "", cluster), "default")
        (asker,) = await bed.run(manifests.idle("asker", await _other_node(bed)))
        loading_s = await _load(bed, asker)
        change = await _change(bed, asker)
        cpus = sorted(os.sched_getaffinity(0))
        half = (len(cpus) + 1) // 2
        knotd = _knotd(cluster)
        _pin(knotd, cpus[:half])
        fast = await _perf(bed, asker, knotd, cpus[half:] or cpus)
        steady = await _perf(bed, asker, knotd, cpus[half:] or cpus, f"-Q{STEADY_RATE}")
        loaded = f"{SERVICES} Services created and loaded in {loading_s:.1f} s"
        return {
            "dns-change": change,
            "dns-rate": Measured(fast.rate, f"{fast}; {loaded}"),
            "dns-latency": Measured(steady.latency_ms, str(steady)),
        }


@dataclass(frozen=True)
class Run:
    """What dnsperf said of one run, and what knotd spent on each answer."""

    rate: float
    latency_ms: float
    lost: int
    spent_us: float

    def __str__(self) -> str:
        return f"{self.spent_us:.1f} µs of knotd's CPU per answer, {self.lost} lost"


async def _other_node(bed: Bed) -> str:
    pods = (await bed.client.list(POD, "kube-system", label_selector="k8s-app=kube-dns")).items
    return next(node for node in await bed.nodes(at_least=2) if node != spec(pods[0])["nodeName"])


async def _load(bed: Bed, asker: Running) -> float:
    """Create the Services, and wait until the last one has its name: the seconds that both took."""
    began, slots = time.monotonic(), asyncio.Semaphore(AT_ONCE)

    async def create(number: int) -> Object:
        async with slots:
            return await bed.create(manifests.service(f"s-{number}", {}, Port(80, HTTP, name="http")))

    made = await asyncio.gather(*map(create, range(SERVICES)))
    async with _watching(bed, asker, f"s-{SERVICES - 1}.{DOMAIN}") as program:
        return await _until(_answers(program), spec(made[-1])["clusterIP"]) - began


async def _change(bed: Bed, asker: Running) -> Measured:
    """The only endpoint of a headless Service becomes another: until its name has the other's address."""
    await bed.create(manifests.service("flip", {}, Port(80, HTTP), **HEADLESS))
    await bed.create(manifests.endpoint_slice("flip", "flip", [{"addresses": ["192.0.2.255"]}], Port(80, HTTP)))
    took_ms: list[float] = []
    async with _watching(bed, asker, f"flip.{DOMAIN}") as program:
        answers = _answers(program)
        await _until(answers, "192.0.2.255")
        for number in range(CHANGES):
            await asyncio.sleep(PAUSE_S)
            address, began = f"192.0.2.{number}", time.monotonic()
            patch = {"endpoints": [{"addresses": [address]}]}
            await bed.client.patch(ENDPOINT_SLICE, "flip", patch, bed.namespace)
            took_ms.append((await _until(answers, address) - began) * 1000)
    how = f"{CHANGES} changes at {SERVICES} Services, from the write to the answer; median "
    return Measured(percentile(took_ms, 99), f"{how}{statistics.median(took_ms):.1f} ms, most {max(took_ms):.1f} ms")


async def _perf(bed: Bed, asker: Running, knotd: Part, cpus: Sequence[int], *options: str) -> Run:
    """dnsperf in the pod, for every Service in turn."""
    listed = ",".join(map(str, cpus))
    perf = f"taskset -c {listed} dnsperf -s {DNS} -d /tmp/names -c 8 -T 1 -l {SECONDS} {' '.join(options)}"
    names = "".join(f"s-{number}.{DOMAIN} A\n" for number in range(SERVICES))
    command, printed, before_s = ["sh", "-c", f"cat > /tmp/names && {perf}"], b"", _cpu_s(knotd)
    async with bed.client.exec(bed.namespace, asker.name, command, stdin=_once(names)) as program:
        async for _, data in program:
            printed += data
    text = printed.decode()
    assert program.exit_code == 0, text
    said = {name: float(number) for name, number in _SAID.findall(text)}
    completed, spent_s = said["Queries completed"], _cpu_s(knotd) - before_s
    lost, latency_ms = int(said["Queries lost"]), said["Average Latency (s)"] * 1000
    return Run(said["Queries per second"], latency_ms, lost, spent_s / completed * 1e6)


_SAID = re.compile(r"^ +([^:]+): +([0-9.]+)", re.MULTILINE)


def _knotd(cluster: Cluster) -> Part:
    (found,) = (p for p in all_parts(cluster.name, cluster.runtime) if arguments(p.pid)[:1] == ["knotd"])
    return found


def _pin(knotd: Part, cpus: Sequence[int]) -> None:
    """Every thread."""
    for thread in Path(f"/proc/{knotd.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cpus)


def _cpu_s(knotd: Part) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{knotd.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _watching(bed: Bed, asker: Running, name: str) -> ExecStream:
    return evaluate(bed.client, bed.namespace, asker.name, ASKING, f"watch({DNS!r}, {name!r})", "")


async def _answers(program: ExecStream) -> AsyncIterator[tuple[float, str]]:
    async for channel, data in program:
        assert channel is Channel.STDOUT, data.decode()
        for line in data.decode().splitlines():
            moment, address = line.split()
            yield float(moment), address


async def _until(answers: AsyncIterator[tuple[float, str]], wanted: str) -> float:
    """The moment from which the name has that address."""
    async with asyncio.timeout(LOADED_S):
        async for moment, address in answers:
            if address == wanted:
                return moment
    raise AssertionError(f"{wanted} was never answered")


async def _once(text: str) -> AsyncIterator[bytes]:
    yield text.encode()
