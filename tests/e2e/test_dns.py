"""The cluster's DNS as a user meets it: names in pods, parts that are killed, a topology that forwards or has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.waiting import wait_until
from tests.e2e.clusters import ROOT, TOPOLOGIES, Cluster, cluster_of
from tests.e2e.command import Ran, cli
from tests.e2e.machine import arguments
from tests.e2e.parts import Part, all_parts

FORWARDING = ROOT / "tests/e2e/forwarding.yaml"
WORLD = "192.0.2.7"
"""The address of www.example.com, according to tests/e2e/world.yaml."""
BACK_S = 30.0


def getent(cluster: Cluster, name: str, pod: str = "deployment/netexec") -> Ran:
    """What the C library finds in a pod."""
    return cli("exec", "--cluster", cluster.name, pod, "--", "getent", "hosts", name, env=cluster.env)


def address(cluster: Cluster, name: str, pod: str = "deployment/netexec") -> str:
    """The address of a name; empty where it has none."""
    return getent(cluster, name, pod).stdout.partition(" ")[0]


def programs(cluster: Cluster, *argv: str) -> list[Part]:
    """The cluster's processes whose arguments contain these in a row."""
    found = all_parts(cluster.name, cluster.runtime)
    return [part for part in found if " ".join(argv) in " ".join(arguments(part.pid))]


def restart(cluster: Cluster, *argv: str) -> None:
    """Kill a program of the DNS's pod, and wait for the next one."""
    (old,) = programs(cluster, *argv)
    old.kill()
    new = wait_until(lambda: [p for p in programs(cluster, *argv) if p != old], BACK_S, f"another {' '.join(argv)}")
    assert len(new) == 1


@pytest.mark.parametrize("runtime", ["netns", "docker"])
def test_pods_find_services_by_name_whichever_part_of_the_dns_is_killed(runtime: str, tmp_path: Path) -> None:
    with cluster_of(TOPOLOGIES / "two-nodes.yaml", runtime, tmp_path) as cluster:
        cluster.up().expect()
        web = address(cluster, "web.default.svc.cluster.local")
        assert web.startswith("10.96.")
        assert [address(cluster, name) for name in ("web", "web.default", "web.default.svc")] == [web] * 3
        assert getent(cluster, "nobody").code != 0
        restart(cluster, "knotd", "--config")
        wait_until(lambda: address(cluster, "web") == web, BACK_S, "an answer of another knotd")
        restart(cluster, "testbed.daemon", "dns")
        wait_until(lambda: address(cluster, "web") == web, BACK_S, "an answer beside another controller")
        service = tmp_path / "late.yaml"
        service.write_text("{apiVersion: v1, kind: Service, metadata: {name: late}, spec: {ports: [{port: 80}]}}")
        cli("apply", service, "--cluster", cluster.name, env=cluster.env).expect()
        wait_until(lambda: address(cluster, "late").startswith("10.96."), BACK_S, "a name from another controller")


def test_a_topology_forwards_other_names_on_netns(tmp_path: Path) -> None:
    with cluster_of(FORWARDING, "netns", tmp_path) as cluster:
        cluster.up().expect()
        assert address(cluster, "www.example.com", "asker") == WORLD
        assert address(cluster, "alias", "asker") == WORLD, "an ExternalName is followed to where it leads"
        assert address(cluster, "kubernetes.default", "asker") == "10.96.0.1"
        cluster.set(dns__forward=[])
        cluster.up().expect()
        assert address(cluster, "kubernetes.default", "asker") == "10.96.0.1"
        assert getent(cluster, "www.example.com", "asker").code != 0


def test_a_topology_may_have_no_dns_on_netns(tmp_path: Path) -> None:
    with cluster_of(TOPOLOGIES / "two-nodes.yaml", "netns", tmp_path) as cluster:
        cluster.up().expect()
        cluster.set(dns__server="none")
        cluster.up().expect()
        wait_until(lambda: not programs(cluster, "knotd"), 20, "the end of knotd, whose pod lingers")
        cluster.end()
        cluster.up().expect()
        asked = getent(cluster, "web")
        assert asked.code != 0
        assert asked.seconds < 5, "a lookup fails at once where there is nobody to ask"
