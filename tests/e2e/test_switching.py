"""Proxy modes are switched on a running cluster: connections go on, new ones get in, nothing of the old mode stays."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
import yaml

from testbed.waiting import wait_until
from tests.e2e.clusters import TOPOLOGIES, UP_S, Cluster, cluster_of
from tests.e2e.command import start_cli
from tests.e2e.edit import on_node
from tests.e2e.load import RETRANSMITTED_MS, expect_progress, load, longest_waits_ms
from tests.e2e.parts import first_parts, parts
from tests.e2e.reach import everybody_reaches_everybody

TOPOLOGY = TOPOLOGIES / "two-nodes.yaml"
SIGNS = {"nftables": "table ip testbed-proxy", "nftables-kubeproxy": "table ip kube-proxy", "iptables": "KUBE-"}
"""By these words a mode's rules are known in `nft list ruleset`."""
TOUR = "nftables", "nftables-kubeproxy", "iptables", "nftables"
LEFT_S = 30.0
"""A mode may take its time to leave."""

on_both_runtimes = pytest.mark.parametrize("runtime", ["netns", "docker"])
docker_in_full = pytest.mark.parametrize("runtime", ["netns", pytest.param("docker", marks=pytest.mark.full)])


@on_both_runtimes
def test_switching_modes_disturbs_no_connection_and_leaves_nothing(runtime: str, tmp_path: Path) -> None:
    with cluster_of(TOPOLOGY, runtime, tmp_path, services__proxy=TOUR[0]) as cluster:
        cluster.up().expect()
        asyncio.run(_tour(cluster))


async def _tour(cluster: Cluster) -> None:
    before = {node: _tables(cluster, node) for node in ("a", "b")}
    async with cluster.client() as client, load(client, through_node_port=True) as echo:
        for mode in TOUR[1:]:
            await asyncio.to_thread(_switch, cluster, mode)
            await expect_progress(client, echo)
        waits = await longest_waits_ms(client, echo)
        lost = {pod: wait for pod, wait in waits.items() if wait >= RETRANSMITTED_MS}
        assert not lost, f"packets were lost: these waited so many milliseconds {lost}"
    after = {node: _tables(cluster, node) for node in ("a", "b")}
    assert after == before, "back in the first mode, the tables are not the same"


@docker_in_full
def test_a_daemon_killed_while_it_switches_comes_to_the_new_mode(runtime: str, tmp_path: Path) -> None:
    with cluster_of(TOPOLOGY, runtime, tmp_path, services__proxy="nftables") as cluster:
        cluster.up().expect()
        asyncio.run(_kill_while_switching(cluster))


async def _kill_while_switching(cluster: Cluster) -> None:
    async with cluster.client() as client, load(client, through_node_port=True) as echo:
        for former, mode in itertools.pairwise(TOUR):
            cluster.set(services__proxy=mode)
            up = start_cli("up", cluster.file, env=cluster.env)
            await asyncio.to_thread(_kill_amid, cluster, former, mode)
            await asyncio.to_thread(up.wait, UP_S)
            await asyncio.to_thread(_switch, cluster, mode)
            await expect_progress(client, echo)


def _kill_amid(cluster: Cluster, former: str, mode: str) -> None:
    """kill -9 of the node daemons at the moment when rules of both modes are there, or the new ones just came."""
    wait_until(lambda: SIGNS[mode] in _ruleset(cluster, "a"), UP_S, f"the first rules of {mode}", every_s=0.01)
    for daemon in parts(cluster.name, cluster.runtime, "node-daemon"):
        daemon.kill()
    first_parts(cluster.name, cluster.runtime, "node-daemon", timeout_s=UP_S)


@docker_in_full
def test_nodes_may_have_modes_of_their_own(runtime: str, tmp_path: Path) -> None:
    nodes = yaml.safe_load(TOPOLOGY.read_text())["spec"]["nodes"]
    modes = dict(zip(("a", "b"), ("nftables-kubeproxy", "iptables"), strict=True))
    mixed = [{**node, "proxy": modes[node["name"]]} for node in nodes]
    with cluster_of(TOPOLOGY, runtime, tmp_path, nodes=mixed) as cluster:
        cluster.up().expect()
        for node, mode in modes.items():
            _expect_only(cluster, node, mode)
        asyncio.run(_everybody(cluster))


async def _everybody(cluster: Cluster) -> None:
    async with cluster.client() as client:
        await everybody_reaches_everybody(client)
        async with load(client, through_node_port=True) as echo:
            await expect_progress(client, echo)


def _switch(cluster: Cluster, mode: str) -> None:
    cluster.set(services__proxy=mode)
    cluster.up().expect()
    for node in ("a", "b"):
        _expect_only(cluster, node, mode)


def _expect_only(cluster: Cluster, node: str, mode: str) -> None:
    """The node has this mode's rules, and soon none of any other's."""

    def found() -> set[str]:
        ruleset = _ruleset(cluster, node)
        return {each for each, sign in SIGNS.items() if sign in ruleset}

    wait_until(lambda: found() == {mode}, LEFT_S, f"the rules of {mode} alone on node {node}", every_s=0.1)


def _tables(cluster: Cluster, node: str) -> set[str]:
    """The tables of a node, but those of the mode that the tour begins and ends with: it may number them."""
    tables = on_node(cluster, node, "nft", "list", "tables").splitlines()
    return {table for table in tables if not table.startswith(SIGNS[TOUR[0]])}


def _ruleset(cluster: Cluster, node: str) -> str:
    return on_node(cluster, node, "nft", "list", "ruleset")
