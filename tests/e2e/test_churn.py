"""Pods come and go under load, and no request fails: the issue's acceptance of workloads and Services together.

Locust asks a Service at a steady rate, over kept connections and new ones, while its Deployment is scaled from 3 to 30
and back to 3, and then rolled until the load ends: in the fast tests once, in the full ones for two minutes.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from tests.e2e import churn
from tests.e2e.clusters import TOPOLOGIES, Cluster, cluster_of
from tests.e2e.command import Running, start_cli
from tests.tiers import FULL

MODES = ("nftables", "nftables-kubeproxy", "iptables")
"""ipvs wants a kernel with its modules: tests/vm."""
FEW, MANY = 3, 30
ROLLING_S = 120 if FULL else 10
SCALING_S = 15
"""How long scaling up and down takes at most; the load goes on in any case until all of it is over."""


@pytest.mark.parametrize("mode", MODES)
def test_scaling_and_rolling_fail_no_request(mode: str, tmp_path: Path) -> None:
    file = tmp_path / "churn.py"
    file.write_text(churn.LOCUSTFILE)
    with cluster_of(TOPOLOGIES / "two-nodes.yaml", "netns", tmp_path, manifests=[], services__proxy=mode) as cluster:
        cluster.up().expect()
        asyncio.run(_deploy(cluster))
        seconds = SCALING_S + ROLLING_S
        load = start_cli(
            "load", "--cluster", cluster.name, "--target", f"service/{churn.NAME}", "--locustfile", file,
            "--users", str(churn.USERS), "--seconds", str(seconds), "--client-node", "a", "--output", "json",
        )  # fmt: skip
        rolls = asyncio.run(_churn(cluster, load))
        record = load.wait(seconds + 60).expect().json()
        assert record["errors"] == 0, f"{record['errors']} of {record['requests']} failed: {record['error']}"
        assert record["requests"] >= 0.8 * churn.REQUESTS_PER_S * seconds, f"the load was not steady: {record}"
        assert rolls >= 1, "the load ended before the Deployment was rolled"


async def _deploy(cluster: Cluster) -> None:
    async with cluster.client() as client:
        await client.create(churn.service())
        await client.create(churn.deployment(FEW))
        await churn.settled(client)


async def _churn(cluster: Cluster, load: Running) -> int:
    """Scale up and down, then roll for as long as the load goes on; how often it was rolled to the end."""
    async with cluster.client() as client:
        await churn.scale(client, MANY)
        await churn.scale(client, FEW)
        for number in itertools.count():
            if load.has_ended:
                return number
            await churn.roll(client, number)
    return 0
