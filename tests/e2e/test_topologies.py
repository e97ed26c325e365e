"""Every file in topologies/: up, everybody reaches everybody, up again changes nothing, down, nothing left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from testbed.api.kinds import CONFIG_MAP, DEPLOYMENT, ENDPOINT_SLICE, NODE, POD, REPLICA_SET, SERVICE
from testbed.api.objects import is_ready, name, resource_version, spec, status, uid
from tests.e2e.asking import Question, ask
from tests.e2e.clusters import TOPOLOGIES, Cluster, cluster_of
from tests.e2e.parts import ROLES, parts
from tests.e2e.reach import everybody_reaches_everybody

ONLY_ON_NAMESPACES = {"twenty-nodes"}
"""220 containers take half a minute to start on two cores; the runtime makes no difference to what it shows."""
SETTLED = (CONFIG_MAP, DEPLOYMENT, ENDPOINT_SLICE, POD, REPLICA_SET, SERVICE)
"""Kinds that nothing touches in a cluster at rest; Nodes and Leases have heartbeats."""

CASES = [
    pytest.param(file, runtime, id=f"{file.stem}-{runtime}")
    for file in sorted(TOPOLOGIES.glob("*.yaml"))
    for runtime in ("netns", "docker")
    if runtime == "netns" or file.stem not in ONLY_ON_NAMESPACES
]


@pytest.mark.parametrize(("file", "runtime"), CASES)
def test_a_topology_comes_up_connects_and_leaves_nothing(file: Path, runtime: str, tmp_path: Path) -> None:
    with cluster_of(file, runtime, tmp_path) as cluster:
        cluster.up().expect()
        assert asyncio.run(_reach(cluster)) > 0
        before = asyncio.run(_state(cluster))
        cluster.up().expect()
        changed = {key for key, value in asyncio.run(_state(cluster)).items() ^ before.items()}
        assert not changed, f"a second up changed {changed}"


@pytest.mark.parametrize("runtime", ["netns", "docker"])
def test_a_changed_file_is_followed(runtime: str, tmp_path: Path) -> None:
    with cluster_of(TOPOLOGIES / "two-nodes.yaml", runtime, tmp_path) as cluster:
        cluster.up().expect()
        untouched = asyncio.run(_uids(cluster))
        original = cluster.file.read_text()
        manifests = [_scaled(TOPOLOGIES / "manifests/netexec.yaml", tmp_path, 3)]
        cluster.set(nodes=[{"name": "a"}, {"name": "b"}, {"name": "c", "labels": {"new": "yes"}}], manifests=manifests)
        cluster.up().expect()
        assert asyncio.run(_nodes(cluster)) == ["a", "b", "c"]
        assert len(asyncio.run(_uids(cluster)).items() - untouched.items()) == 1, "one pod more, and no other changed"
        asyncio.run(_reach(cluster))
        cluster.file.write_text(original)
        cluster.up().expect()
        assert asyncio.run(_nodes(cluster)) == ["a", "b"]
        asyncio.run(_reach(cluster))


@pytest.mark.parametrize("runtime", ["netns", "docker"])
def test_another_backend_takes_over_in_a_running_cluster(runtime: str, tmp_path: Path) -> None:
    with cluster_of(TOPOLOGIES / "two-nodes.yaml", runtime, tmp_path) as cluster:
        cluster.up().expect()
        untouched = asyncio.run(_uids(cluster))
        for backend in ("host-gw", "vxlan"):
            cluster.set(network__backend=backend)
            cluster.up().expect()
            asyncio.run(_reach(cluster))
        assert asyncio.run(_uids(cluster)) == untouched, "the pods stay"


@pytest.mark.parametrize("runtime", ["netns", "docker"])
def test_a_machine_outside_reaches_nodes_and_no_pod(runtime: str, tmp_path: Path) -> None:
    with cluster_of(TOPOLOGIES / "three-nodes.yaml", runtime, tmp_path) as cluster:
        cluster.up().expect()
        outcomes = asyncio.run(_from_outside(cluster))
        assert outcomes["node"] == {"REFUSED"}, "nobody listens on the nodes' port, and the node says so itself"
        assert not (outcomes["pod"] | outcomes["service"]) & {"OK", "REFUSED"}, outcomes


async def _from_outside(cluster: Cluster) -> dict[str, set[str]]:
    """What becomes of connections from the pod `client`, by kind of target."""
    async with cluster.client() as client:
        pods = (await client.list(POD, "default", label_selector="app=web")).items
        services = (await client.list(SERVICE, "default")).items
        where = [("node", status(pod)["hostIP"], 81) for pod in pods]
        where += [("pod", status(pod)["podIP"], 80) for pod in pods]
        where += [("service", spec(service)["clusterIP"], 80) for service in services]
        questions: list[Question] = [("tcp", {"host": host, "port": port, "timeout_s": 0.5}) for _, host, port in where]
        answers = await ask(client, "default", "client", questions)
    found: dict[str, set[str]] = {}
    for (kind, _, _), answer in zip(where, answers, strict=True):
        found.setdefault(kind, set()).add(answer["outcome"])
    return found


async def _reach(cluster: Cluster) -> int:
    async with cluster.client() as client:
        return await everybody_reaches_everybody(client)


async def _state(cluster: Cluster) -> dict[str, object]:
    """Every object's version, every part's process: what a second `up` must leave alone."""
    state: dict[str, object] = {role: tuple(parts(cluster.name, cluster.runtime, role)) for role in ROLES}
    assert all(state.values()), f"not every part was found: {state}"
    async with cluster.client() as client:
        for kind in SETTLED:
            for obj in (await client.list(kind)).items:
                state[f"{kind.plural} {name(obj)}"] = (uid(obj), resource_version(obj))
        for node in (await client.list(NODE)).items:
            state[f"node {name(node)}"] = (uid(node), str(spec(node)))
    return state


async def _uids(cluster: Cluster) -> dict[str, str]:
    async with cluster.client() as client:
        return {name(pod): uid(pod) for pod in (await client.list(POD, "default")).items}


async def _nodes(cluster: Cluster) -> list[str]:
    async with cluster.client() as client:
        return sorted(name(node) for node in (await client.list(NODE)).items if is_ready(node))


def _scaled(manifest: Path, directory: Path, replicas: int) -> str:
    docs = list(yaml.safe_load_all(manifest.read_text()))
    for doc in docs:
        if doc["kind"] == "Deployment":
            doc["spec"]["replicas"] = replicas
    copy = directory / manifest.name
    copy.write_text(yaml.safe_dump_all(docs))
    return str(copy)
