"""The standing bench: a generator in every client pod, a probe on every node, each variant's path proven."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from testbed.api.kinds import POD, SERVICE
from testbed.api.objects import Object, status
from testbed.api.objects import spec as spec_of
from testbed.client.http import HttpClient
from testbed.compare.environment import VariantInfo
from testbed.compare.load import Comparison
from testbed.compare.measurement import Phase, phase
from testbed.compare.path import REQUESTS, TUNNELS, UNPROVEN, Ends, PathProof, prove
from testbed.compare.placement import Placement
from testbed.compare.schema import Variant
from testbed.compare.session import Refused, Session, session
from testbed.compare.workloads import NAMESPACE, PORT, client_name, probe_name, target_name
from testbed.loadgen.records import Trial, TrialResult
from testbed.runtime.connect import client_of
from testbed.runtime.protocol import Endpoint
from testbed.topology.spec import ClusterSpec

log = logging.getLogger(__name__)

GENERATOR = ("python3", "-m", "testbed.loadgen", "serve")
PROBE = ("python3", "-m", "testbed.loadgen.probe", "serve")
_SLACK_S = 30.0
"""How much longer than planned a trial may take before its generator counts as hung."""


@dataclass(frozen=True)
class Route:
    """A variant, ready to be measured."""

    info: VariantInfo
    generator: Session
    probes: tuple[Session, ...]
    """On the client's node and the target's."""
    server: tuple[int, ...]
    """The processes of the server, as the last probe sees them."""
    nice: tuple[int, int]
    """Priority of generator and server."""


@dataclass(frozen=True)
class Bench:
    """All routes of a comparison, and the machine under them."""

    routes: Mapping[str, Route]
    machine: Mapping[str, Any]
    devices: Mapping[str, Any]

    @property
    def variants(self) -> dict[str, VariantInfo]:
        """Every variant as it is measured."""
        return {name: route.info for name, route in self.routes.items()}

    @property
    def nice(self) -> dict[str, list[int]]:
        """The priorities of all generators and of all servers, each value once: one each, if variants are equals."""
        generators, servers = zip(*(route.nice for route in self.routes.values()), strict=True)
        return {"generator": sorted(set(generators)), "server": sorted(set(servers))}

    async def forget_connections(self, variant: str) -> None:
        """Delete what the nodes track of the variant's earlier trials."""
        route = self.routes[variant]
        for probe in route.probes:
            await forget_connections(probe, route.info.target_address)

    async def measure(self, variant: str, trial: Trial) -> Phase:
        """Measure one window, and what it cost the server."""
        route = self.routes[variant]
        planned = trial.settle_s + trial.warmup_limit_s + trial.window_s
        before = await cpu_us(route)
        answer = await route.generator.ask("trial", trial.to_json(), planned + _SLACK_S)
        return phase(trial.users, TrialResult.from_json(answer["result"]), await cpu_us(route) - before)


@asynccontextmanager
async def open_bench(
    comparison: Comparison,
    specs: Mapping[str, ClusterSpec],
    endpoints: Mapping[str, Endpoint],
    placement: Placement,
) -> AsyncIterator[Bench]:
    """Start a generator for each client pod and a probe for each node, and prove every path."""
    async with AsyncExitStack() as stack:
        clusters = {
            name: _Cluster(comparison, specs[name], await stack.enter_async_context(client_of(endpoint)), placement)
            for name, endpoint in endpoints.items()
        }
        for cluster in clusters.values():
            await cluster.open(stack)
        await asyncio.gather(*(cluster.load_locustfile() for cluster in clusters.values()))
        routes = {}
        for name in comparison.variants:
            routes[name] = await clusters[comparison.cluster_of(name).name].route(name)
        devices = {name: await cluster.devices() for name, cluster in clusters.items()}
        machine = await next(iter(clusters.values())).machine()
        yield Bench(routes, machine, devices)


class _Cluster:
    """The sessions of one cluster while they are being opened."""

    def __init__(self, comparison: Comparison, spec: ClusterSpec, client: HttpClient, placement: Placement) -> None:
        self._comparison, self._spec, self._client, self._placement = comparison, spec, client, placement
        names = next(cluster.variants for cluster in comparison.clusters if cluster.name == spec.name)
        self._variants: dict[str, Variant] = {name: comparison.variants[name] for name in names}
        self._generators: dict[str, Session] = {}
        self._probes: dict[str, Session] = {}
        self._nice: dict[str, int] = {}

    async def open(self, stack: AsyncExitStack) -> None:
        """Start every program; they come up side by side."""
        pin = ("--cpu", str(self._placement.client))
        for pod in {client_name(variant.client) for variant in self._variants.values()}:
            opened = session(self._client, pod, (*GENERATOR, *pin))
            self._generators[pod] = await stack.enter_async_context(opened)
        ends = [end for variant in self._variants.values() for end in (variant.client, variant.target)]
        for node in {end.node for end in ends}:
            self._probes[node] = await stack.enter_async_context(session(self._client, probe_name(node), PROBE))

    async def load_locustfile(self) -> None:
        """Hand the locustfile to every generator."""
        file = self._comparison.locustfile
        source = {"name": file.name, "source": file.read_text(encoding="utf-8")}
        answers = await asyncio.gather(*(one.ask("load", source, timeout_s=60) for one in self._generators.values()))
        for pod, answer in zip(self._generators, answers, strict=True):
            self._nice[pod] = answer["loaded"]["nice"]

    async def route(self, name: str) -> Route:
        """A variant with its addresses, its path checked."""
        variant = self._variants[name]
        client_address = await self._pod_address(client_name(variant.client))
        target_address = await self._pod_address(target_name(variant.target))
        host = await self._service_address(variant) if variant.target.via == "service" else target_address
        generator = self._generators[client_name(variant.client)]
        probes = tuple(self._probes[node] for node in dict.fromkeys((variant.client.node, variant.target.node)))
        url = f"http://{host}:{PORT}"
        proof = await check_path(generator, probes[0], url, ends(variant, self._spec, client_address, target_address))
        log.info("%s: %s, %s", name, proof.status, proof.detail)
        info = VariantInfo(
            client_node=variant.client.node,
            client_host_network=variant.client.host_network,
            target_node=variant.target.node,
            target_host_network=variant.target.host_network,
            via=variant.target.via,
            settings=dict(variant.settings),
            cluster=self._spec.name,
            client_address=client_address,
            target_address=target_address,
            url=url,
            path=proof.status,
            path_detail=proof.detail,
        )
        served = await probes[-1].ask("serving", {"address": target_address, "port": PORT})
        server_nice = (await probes[-1].ask("prefer", served))["nice"]
        nice = (self._nice[client_name(variant.client)], server_nice)
        return Route(info, generator, probes, tuple(served["pids"]), nice)

    async def devices(self) -> dict[str, Any]:
        """Node → device → MTU, offloads and counters."""
        return {node: (await probe.ask("counters", {})) for node, probe in sorted(self._probes.items())}

    async def machine(self) -> dict[str, Any]:
        """The machine as the first probe sees it."""
        return await next(iter(self._probes.values())).ask("machine", {})

    async def _pod_address(self, pod: str) -> str:
        found: Object = await self._client.get(POD, pod, NAMESPACE)
        return str(status(found)["podIP"])

    async def _service_address(self, variant: Variant) -> str:
        found: Object = await self._client.get(SERVICE, target_name(variant.target), NAMESPACE)
        return str(spec_of(found)["clusterIP"])


def ends(variant: Variant, spec: ClusterSpec, client_address: str, target_address: str) -> Ends:
    """What the packets of a variant must look like when they leave the client's node."""
    nodes = {node.name: node for node in spec.nodes}
    here, there = nodes[variant.client.node], nodes[variant.target.node]
    in_tunnel = spec.network.backend in TUNNELS and not variant.target.host_network and not here.is_external
    outer = (str(here.address.ip), str(there.address.ip), spec.network.vni)
    return Ends(
        # Towards a pod, a node speaks from its tunnel's address; towards a node, a pod's address is masqueraded.
        source=client_address if variant.client.host_network is variant.target.host_network else "",
        target=target_address,
        port=PORT,
        crosses=here.name != there.name,
        tunnel=outer if in_tunnel else None,
    )


async def check_path(generator: Session, probe: Session, url: str, expected: Ends) -> PathProof:
    """Make some requests while the probe on the client's node watches the underlay, and judge what it saw."""
    try:
        await probe.ask("capture", {})
    except Refused as error:
        return PathProof(UNPROVEN, str(error))
    checked = (await generator.ask("check", {"host": url, "requests": REQUESTS}))["checked"]
    seen = await probe.ask("stop", {})
    if checked["errors"]:
        return PathProof(UNPROVEN, f"{checked['errors']} of {REQUESTS} requests failed: {checked['error']}")
    return prove(expected, seen["flows"], checked["requests"])


async def cpu_us(route: Route) -> int:
    """CPU time that the server has used so far; 0 where its processes cannot be seen."""
    if not route.server:
        return 0
    answer = await route.probes[-1].ask("cpu", {"pids": list(route.server)})
    return int(answer["cpu_us"])


async def forget_connections(probe: Session, target: str) -> None:
    """Delete what a node tracks towards `target`; where the probe may not, old connections time out by themselves."""
    try:
        await probe.ask("conntrack-delete", {"target": target})
    except Refused as error:
        log.debug("%s", error)
