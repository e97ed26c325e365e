"""What a running cluster costs and how fast it follows: the node daemon's memory, an endpoint that changes."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from testbed.api.kinds import ENDPOINT_SLICE, POD
from testbed.api.objects import Object, is_ready, spec, status
from testbed.api.wellknown import SERVICE_NAME_LABEL
from testbed.client.http import HttpClient
from testbed.client.streams import Channel, ExecStream
from testbed.waiting import wait_until_async
from tests.benchmarks.figures import Measured, percentile
from tests.conformance import manifests
from tests.conformance.manifests import HTTP, Port
from tests.e2e.asking import evaluate
from tests.e2e.clusters import TOPOLOGIES, Cluster, unique
from tests.e2e.parts import parts

KNOCKING = Path(__file__).with_name("knocking.py")
SERVICES = 10
FLIPS = 200
PORT = 80
READY_S = 30.0


def memory_on(runtime: str) -> Mapping[str, Measured]:
    """RssAnon of the node daemon (the largest one, where there are several) of a cluster with ten Services."""
    with _cluster(runtime) as cluster:
        asyncio.run(_ten_services(cluster))
        daemons = parts(cluster.name, runtime, "node-daemon")
        sizes = [_rss_anon_mb(daemon.pid) for daemon in daemons]
    how = f"{len(sizes)} for 2 nodes and {SERVICES} Services: {', '.join(f'{size:.1f}' for size in sizes)} MB"
    return {f"node-daemon-memory-{runtime}": Measured(max(sizes), how)}


def endpoint_change() -> Mapping[str, Measured]:
    """A Service's only endpoint becomes another one, two hundred times: until a new connection reaches the new one."""
    with _cluster("netns") as cluster:
        seconds = asyncio.run(_flips(cluster))
    how = f"{FLIPS} changes, median {statistics.median(seconds) * 1000:.1f} ms, most {max(seconds) * 1000:.1f} ms"
    return {"endpoint-change": Measured(percentile(seconds, 99) * 1000, how)}


@contextmanager
def _cluster(runtime: str) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster.of(
            TOPOLOGIES / "two-nodes.yaml", Path(directory), runtime, name=unique(f"b-inside-{runtime}")
        )
        try:
            cluster.up().expect()
            yield cluster
        finally:
            cluster.down().expect()


async def _ten_services(cluster: Cluster) -> None:
    """Ten Services with endpoints, and time for the daemons to take them in: they have when the last one answers."""
    async with cluster.client() as client:
        addresses = [
            spec(await client.create(_in_default(manifests.service(f"s-{number}", {"app": "netexec"}, Port(80, HTTP)))))
            for number in range(SERVICES)
        ]
        await _run(client, manifests.server("client", "a"))
        async with _knocking(client, addresses[-1]["clusterIP"]) as answers:
            async for _, name in answers:
                if name.startswith("netexec"):
                    return


async def _flips(cluster: Cluster) -> list[float]:
    async with cluster.client() as client:
        backends = await asyncio.gather(
            _run(client, manifests.server("one", "b")), _run(client, manifests.server("two", "b"))
        )
        await _run(client, manifests.server("client", "a"))
        service = manifests.service("flip", {}, Port(PORT, HTTP))
        del service["spec"]["selector"]
        address = spec(await client.create(_in_default(service)))["clusterIP"]
        await client.create(_slice(backends[0]))
        seconds: list[float] = []
        async with _knocking(client, address) as answers:
            await _until(answers, "one")
            for number in range(1, FLIPS + 1):
                backend = backends[number % 2]
                began = time.monotonic()
                await client.patch(ENDPOINT_SLICE, "flip", {"endpoints": _endpoints(backend)}, "default")
                seconds.append(await _until(answers, backend["metadata"]["name"]) - began)
        return seconds


@asynccontextmanager
async def _knocking(client: HttpClient, address: str) -> AsyncIterator[AsyncIterator[tuple[float, str]]]:
    """Moments and names, from a pod called client."""
    program = evaluate(client, "default", "client", KNOCKING, f"knock({address!r}, {PORT})", "")
    async with program:
        yield _answers(program)


async def _answers(program: ExecStream) -> AsyncIterator[tuple[float, str]]:
    async for channel, data in program:
        assert channel is Channel.STDOUT, data.decode()
        for line in data.decode().splitlines():
            moment, name = line.split()
            yield float(moment), name


async def _until(answers: AsyncIterator[tuple[float, str]], wanted: str) -> float:
    """The moment from which the server of that name answers."""
    async with asyncio.timeout(READY_S):
        async for moment, name in answers:
            if name == wanted:
                return moment
    raise AssertionError(f"{wanted} never answered")


def _slice(backend: Object) -> Object:
    meta = {"name": "flip", "namespace": "default", "labels": {SERVICE_NAME_LABEL: "flip"}}
    ports = [{"name": f"tcp-{PORT}", "port": HTTP, "protocol": "TCP"}]
    kind = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4"}
    return {**kind, "metadata": meta, "ports": ports, "endpoints": _endpoints(backend)}


def _endpoints(backend: Object) -> list[Object]:
    return [{"addresses": [status(backend)["podIP"]], "conditions": {"ready": True}}]


async def _run(client: HttpClient, pod: Object) -> Object:
    """Create a pod; itself when it is Ready."""
    await client.create(_in_default(pod))

    async def check() -> Object | None:
        found = await client.get(POD, pod["metadata"]["name"], "default")
        return found if is_ready(found) else None

    return await wait_until_async(check, READY_S, f"readiness of pod {pod['metadata']['name']}", every_s=0.05)


def _in_default(obj: Object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "namespace": "default"}}


def _rss_anon_mb(pid: int) -> float:
    """proc(5), VmRSS: kB are 1024 bytes; MB here are a million."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError(f"/proc/{pid}/status has no RssAnon")
