"""kill -9 of every part at every moment: the cluster recovers, or the next command removes it cleanly.

What already flows is not disturbed: open connections and new ones go on while a part is dead, and no write that was
acknowledged is lost.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from testbed.api.kinds import CONFIG_MAP
from testbed.api.objects import name
from testbed.client.http import HttpClient
from testbed.errors import ApiError
from testbed.waiting import wait_until, wait_until_async
from tests.conformance import manifests
from tests.e2e.asking import ask
from tests.e2e.clusters import DOWN_S, TOPOLOGIES, UP_S, Cluster, cluster_of
from tests.e2e.command import start_cli
from tests.e2e.load import Echo, expect_progress, in_default, load, run_pod
from tests.e2e.machine import directories_of
from tests.e2e.parts import ROLES, Part, all_parts, anchor, first_parts, parts
from tests.e2e.reach import everybody_reaches_everybody

TOPOLOGY = TOPOLOGIES / "two-nodes.yaml"
RECOVERED_S = 60.0
WRITERS = 4

on_both_runtimes = pytest.mark.parametrize("runtime", ["netns", "docker"])
docker_in_full = pytest.mark.parametrize("runtime", ["netns", pytest.param("docker", marks=pytest.mark.full)])
"""For moments at which it makes no difference who keeps the processes."""
of_every_part = pytest.mark.parametrize("part", ROLES)


@docker_in_full
@of_every_part
def test_killed_during_up_it_comes_up_all_the_same(runtime: str, part: str, tmp_path: Path) -> None:
    with cluster_of(TOPOLOGY, runtime, tmp_path) as cluster:
        up = start_cli("up", cluster.file)
        kill(first_parts(cluster.name, runtime, part, timeout_s=UP_S))
        if up.wait(UP_S).code != 0:
            cluster.up().expect()
        asyncio.run(_reach(cluster))


@on_both_runtimes
@of_every_part
def test_killed_under_load_it_disturbs_nobody_and_comes_back(runtime: str, part: str, tmp_path: Path) -> None:
    with cluster_of(TOPOLOGY, runtime, tmp_path) as cluster:
        cluster.up().expect()
        asyncio.run(_kill_under_load(cluster, part))
        asyncio.run(_reach(cluster))


@docker_in_full
@of_every_part
def test_killed_during_down_nothing_is_left(runtime: str, part: str, tmp_path: Path) -> None:
    with cluster_of(TOPOLOGY, runtime, tmp_path) as cluster:
        cluster.up().expect()
        everything = all_parts(cluster.name, runtime)
        victims = parts(cluster.name, runtime, part)
        kill(victims)
        down = start_cli("down", cluster.name)
        # Its keeper starts it again: once more, in the middle, when the first process has been taken away.
        wait_until(lambda: down.has_ended or not _all_live(everything, victims), DOWN_S, "the first step of down")
        kill(parts(cluster.name, runtime, part))
        down.wait(DOWN_S)


@docker_in_full
@pytest.mark.parametrize("moment", ["control-plane", "node-daemon"])
def test_an_up_that_is_killed_itself_is_completed_by_the_next(runtime: str, moment: str, tmp_path: Path) -> None:
    with cluster_of(TOPOLOGY, runtime, tmp_path) as cluster:
        up = start_cli("up", cluster.file)
        first_parts(cluster.name, runtime, moment, timeout_s=UP_S)
        up.signal(signal.SIGKILL)
        up.wait(DOWN_S)
        cluster.up().expect()
        asyncio.run(_reach(cluster))


@on_both_runtimes
def test_an_up_that_is_killed_itself_is_removed_by_down(runtime: str, tmp_path: Path) -> None:
    with cluster_of(TOPOLOGY, runtime, tmp_path) as cluster:
        up = start_cli("up", cluster.file)
        first_parts(cluster.name, runtime, "agent", timeout_s=UP_S)
        up.signal(signal.SIGKILL)
        up.wait(DOWN_S)


def test_with_its_anchor_a_netns_cluster_ends(tmp_path: Path) -> None:
    with cluster_of(TOPOLOGY, "netns", tmp_path) as cluster:
        cluster.up().expect()
        pid = anchor(cluster.name)
        assert pid, "a netns cluster has an anchor"
        everything = all_parts(cluster.name, "netns")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(part.lives for part in everything), DOWN_S, "the end of all its processes")
        cluster.up().expect()
        asyncio.run(_reach(cluster))


@on_both_runtimes
def test_down_needs_no_file_of_ours(runtime: str, tmp_path: Path) -> None:
    with cluster_of(TOPOLOGY, runtime, tmp_path) as cluster:
        cluster.up().expect()
        cluster.file.unlink()
        for directory in directories_of(cluster.name):
            shutil.rmtree(directory, ignore_errors=True)


def kill(victims: list[Part]) -> None:
    """SIGKILL each; one that has gone meanwhile is dead too."""
    for victim in victims:
        with suppress(ProcessLookupError):
            victim.kill()


def _all_live(everything: list[Part], but: list[Part]) -> bool:
    return all(part.lives for part in everything if part not in but)


async def _reach(cluster: Cluster) -> int:
    async with cluster.client() as client:
        return await everybody_reaches_everybody(client)


async def _kill_under_load(cluster: Cluster, part: str) -> None:
    async with cluster.client() as client, load(client) as echo:
        acknowledged: list[str] = []
        writers = [asyncio.create_task(_write(client, f"w{number}", acknowledged)) for number in range(WRITERS)]
        await wait_until_async(_more_than(acknowledged, 50), RECOVERED_S, "fifty writes")
        victims = parts(cluster.name, cluster.runtime, part)
        assert victims, f"no {part} of {cluster.name} was found"
        kill(victims)
        await wait_until_async(
            _more_than(acknowledged, len(acknowledged) + 50), RECOVERED_S, f"fifty writes after the {part} was killed"
        )
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        stored = {name(item) for item in (await client.list(CONFIG_MAP, "default")).items}
        assert not (lost := set(acknowledged) - stored), f"acknowledged and lost: {sorted(lost)[:10]}"
        await asyncio.to_thread(first_parts, cluster.name, cluster.runtime, part, RECOVERED_S)
        await expect_progress(client, echo)
        await _expect_recovered(client, echo)


async def _expect_recovered(client: HttpClient, echo: Echo) -> None:
    """A pod that is started now runs, and reaches the Service."""
    await run_pod(client, manifests.server("fresh", "a"))
    host, port = echo.doors["cluster-ip"]
    (answer,) = await ask(client, "default", "fresh", [("tcp", {"host": host, "port": port})])
    assert answer["outcome"] == "OK", f"a pod started after the recovery cannot reach the Service: {answer}"


async def _write(client: HttpClient, prefix: str, acknowledged: list[str]) -> None:
    """Create ConfigMaps, one after the other, and remember those that the server said yes to."""
    for number in itertools.count():

        async def attempt(number: int = number) -> str | None:
            # After an error nobody knows whether it was stored: the next attempt needs another name.
            new = f"{prefix}-{number}-{time.monotonic_ns()}"
            doc = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": new}, "data": {"key": "value"}}
            try:
                return name(await client.create(in_default(doc)))
            except ApiError:
                return None

        acknowledged.append(await wait_until_async(attempt, RECOVERED_S, "an acknowledged write"))


def _more_than(acknowledged: list[str], number: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return len(acknowledged) > number

    return check
