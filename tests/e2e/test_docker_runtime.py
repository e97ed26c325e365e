"""The docker runtime on a real engine: containers made, kept, repaired and removed. Pods are tested elsewhere."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest

from testbed.agent.docker_engine import connect
from testbed.agent.docker_names import AGENT, CONTROL_PLANE, DAEMON, NODE, POD, SWITCH, Names, of_cluster
from testbed.errors import ApiError, CommandFailed, MachineLacks, NotFound
from testbed.runtime.docker import DockerRuntime
from testbed.runtime.images import wanted
from testbed.topology.plan import plan
from testbed.topology.schema import Topology
from testbed.topology.spec import ClusterSpec
from testbed.waiting import wait_until, wait_until_async
from tests.e2e.clusters import TOPOLOGIES, Cluster, cluster_of
from tests.e2e.reach import everybody_reaches_everybody

RESTARTED_WITHIN_S = 30.0
REWIRED_WITHIN_S = 60.0


def quiet(_: str) -> None:
    """No progress."""


@pytest.fixture(scope="module", params=["docker"])
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = connect()
    except MachineLacks as error:
        pytest.skip(str(error))
    yield client
    client.close()


@pytest.fixture
def name(engine: docker.DockerClient) -> Iterator[str]:
    """A cluster's name; whatever bears it is removed in the end."""
    cluster = f"e-runtime-{os.getpid()}"
    yield cluster
    DockerRuntime().delete(cluster, quiet)
    assert cluster not in DockerRuntime().clusters()


def spec_of(name: str, *nodes: str) -> ClusterSpec:
    document = {
        "apiVersion": "testbed/v1",
        "kind": "Topology",
        "metadata": {"name": name},
        "spec": {"nodes": [{"name": node} for node in nodes]},
    }
    return plan(Topology.model_validate(document), runtime="docker")


def holders(engine: docker.DockerClient, cluster: str) -> dict[str, Mapping[str, Any]]:
    """Every container that holds a namespace, by name, as the engine describes it."""
    found = [
        container
        for role in (SWITCH, NODE)
        for container in engine.api.containers(all=True, filters=of_cluster(cluster, role=role))
    ]
    return {one["Names"][0].lstrip("/"): engine.api.inspect_container(one["Id"]) for one in found}


def roles(engine: docker.DockerClient, cluster: str) -> list[str]:
    return sorted(one["Labels"]["testbed.role"] for one in engine.api.containers(all=True, filters=of_cluster(cluster)))


def test_a_cluster_is_made_found_and_removed(engine: docker.DockerClient, name: str) -> None:
    runtime, spec = DockerRuntime(), spec_of(name, "a", "b")
    runtime.create(spec, quiet)
    assert roles(engine, name) == sorted([SWITCH, AGENT, CONTROL_PLANE, NODE, NODE, DAEMON, DAEMON])
    assert name in runtime.clusters()
    assert runtime.spec(name) == spec
    removal = runtime.delete(name, quiet)
    assert removal.leftovers == ()
    assert len([line for line in removal.removed if line.startswith("container ")]) == 7
    assert any("other networks" in line for line in removal.checked)
    assert runtime.spec(name) is None


def test_the_api_is_published_on_loopback_only_and_on_the_same_port_for_ever(
    engine: docker.DockerClient, name: str
) -> None:
    runtime = DockerRuntime()
    runtime.create(spec_of(name, "a"), quiet)
    endpoint = runtime.endpoint(name)
    _greet(endpoint.url, endpoint.ca)
    control_plane = Names(name).place(CONTROL_PLANE)
    published = engine.api.inspect_container(control_plane)["NetworkSettings"]["Ports"]
    assert {port["HostIp"] for ports in published.values() for port in ports} == {"127.0.0.1"}
    engine.api.remove_container(control_plane, force=True)
    runtime.create(spec_of(name, "a"), quiet)
    assert runtime.endpoint(name) == endpoint
    _greet(endpoint.url, endpoint.ca)


def test_a_second_creation_touches_nothing(engine: docker.DockerClient, name: str) -> None:
    runtime, spec = DockerRuntime(), spec_of(name, "a")
    runtime.create(spec, quiet)
    before = {one["Id"] for one in engine.api.containers(filters=of_cluster(name))}
    started = {key: one["State"]["StartedAt"] for key, one in holders(engine, name).items()}
    runtime.create(spec, quiet)
    assert {one["Id"] for one in engine.api.containers(filters=of_cluster(name))} == before
    assert {key: one["State"]["StartedAt"] for key, one in holders(engine, name).items()} == started


def test_nodes_come_and_go_and_the_others_stay(engine: docker.DockerClient, name: str) -> None:
    runtime, names = DockerRuntime(), Names(name)
    runtime.create(spec_of(name, "a", "b"), quiet)
    kept = holders(engine, name)[names.place("b")]["State"]["Pid"]
    runtime.create(spec_of(name, "b", "c"), quiet)
    now = holders(engine, name)
    assert set(now) == {names.place(SWITCH), names.place("b"), names.place("c")}
    assert now[names.place("b")]["State"]["Pid"] == kept
    assert roles(engine, name).count(DAEMON) == 2


@pytest.mark.parametrize("part", [CONTROL_PLANE, "node_a", "daemon_a"])
def test_what_was_removed_by_hand_is_made_again(engine: docker.DockerClient, name: str, part: str) -> None:
    runtime, spec = DockerRuntime(), spec_of(name, "a")
    runtime.create(spec, quiet)
    before = roles(engine, name)
    engine.api.remove_container(Names(name).container(part), force=True)
    runtime.create(spec, quiet)
    assert roles(engine, name) == before
    daemon = engine.api.inspect_container(Names(name).container("daemon", "a"))
    node = engine.api.inspect_container(Names(name).place("a"))
    assert daemon["HostConfig"]["NetworkMode"] == f"container:{node['Id']}"


@pytest.mark.parametrize("holder", [SWITCH, NODE, POD])
def test_a_killed_holder_comes_back_and_is_wired_again(
    engine: docker.DockerClient, holder: str, tmp_path: Path
) -> None:
    with cluster_of(TOPOLOGIES / "two-nodes.yaml", "docker", tmp_path) as cluster:
        cluster.up().expect()
        victim = engine.api.containers(filters=of_cluster(cluster.name, role=holder))[0]["Id"]
        pid = engine.api.inspect_container(victim)["State"]["Pid"]
        kill(engine, pid)
        wait_until(lambda: _runs_anew(engine, victim, pid), RESTARTED_WITHIN_S, f"the return of a {holder}")
        asyncio.run(_reaches(cluster))


def test_a_first_creation_that_fails_leaves_nothing_and_takes_nothing(engine: docker.DockerClient, name: str) -> None:
    spec = spec_of(name, "a", "b")
    DockerRuntime().create(spec, quiet)  # for the image's tag
    image = holders(engine, name)[Names(name).place("b")]["Config"]["Image"]
    DockerRuntime().delete(name, quiet)
    foreign = engine.api.create_container(image, name=Names(name).place("b"))["Id"]
    try:
        with pytest.raises(CommandFailed, match="already in use"):
            DockerRuntime().create(spec, quiet)
        assert roles(engine, name) == []
        assert name not in DockerRuntime().clusters()
        assert engine.api.inspect_container(foreign)["Id"] == foreign
    finally:
        engine.api.remove_container(foreign)


def test_a_removal_needs_no_switch_and_may_come_twice(engine: docker.DockerClient, name: str) -> None:
    runtime = DockerRuntime()
    runtime.create(spec_of(name, "a"), quiet)
    engine.api.remove_container(Names(name).place(SWITCH), force=True)
    assert runtime.delete(name, quiet).leftovers == ()
    assert runtime.delete(name, quiet).removed == ()


def test_there_is_no_endpoint_where_no_cluster_is(engine: docker.DockerClient) -> None:
    with pytest.raises(NotFound, match="no cluster nobody"):
        DockerRuntime().endpoint("nobody")


def test_no_container_is_privileged_and_only_the_agent_has_much(engine: docker.DockerClient, name: str) -> None:
    DockerRuntime().create(spec_of(name, "a"), quiet)
    for one in engine.api.containers(all=True, filters=of_cluster(name)):
        host = engine.api.inspect_container(one["Id"])["HostConfig"]
        assert not host["Privileged"]
        assert host["CapDrop"] == ["ALL"]
        if one["Labels"]["testbed.role"] in (SWITCH, NODE, CONTROL_PLANE):
            assert not host["CapAdd"]


def kill(engine: docker.DockerClient, pid: int) -> None:
    """SIGKILL from outside: what the engine itself kills, it does not start again."""
    image = wanted()["base"].reference
    engine.containers.run(image, ["kill", "-KILL", str(pid)], pid_mode="host", network_mode="none", remove=True)


def _runs_anew(engine: docker.DockerClient, container: str, killed: int) -> bool:
    state = engine.api.inspect_container(container)["State"]
    return bool(state["Running"] and state["Pid"] not in (0, killed))


async def _reaches(cluster: Cluster) -> None:
    async def everybody() -> bool:
        try:
            async with cluster.client() as client:
                await everybody_reaches_everybody(client)
        except (AssertionError, ApiError):
            return False
        return True

    await wait_until_async(everybody, REWIRED_WITHIN_S, "everybody reaching everybody again", every_s=0.2)


def _greet(url: str, ca: bytes) -> None:
    """A TLS handshake, once the control plane has started."""
    host, _, port = url.removeprefix("https://").partition(":")
    context = ssl.create_default_context(cadata=ca.decode())

    def greeted() -> bool:
        try:
            with socket.create_connection((host, int(port)), timeout=2) as plain:
                context.wrap_socket(plain, server_hostname=host).close()
        except (ConnectionError, TimeoutError, ssl.SSLEOFError):
            return False
        return True

    wait_until(greeted, RESTARTED_WITHIN_S, f"an answer at {url}")
