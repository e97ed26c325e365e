"""What a user sees of node proxies: the path of a Service, what differs on a node, and its figures."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.api.kinds import POD
from testbed.api.objects import Object, name
from testbed.errors import NotFound
from testbed.runtime.capabilities import known
from testbed.waiting import wait_until, wait_until_async
from tests.e2e.clusters import TOPOLOGIES, Cluster, cluster_of, unique
from tests.e2e.command import Ran, cli, start_cli

DONE, DIFFERENT, BAD_INPUT, LACKS = 0, 1, 2, 3
HEALED_S = 10.0
PROGRAMMED = 'kubeproxy_network_programming_duration_seconds_{}{{ip_family="IPv4"}}'
LATE: Object = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "late", "namespace": "default"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
}
VANDAL = """\
element="services {{ {key} }}"
for attempt in $(seq 300); do
    for table in testbed-proxy testbed-proxy-2; do nft "delete element ip $table $element"; done
    sleep 0.1
done 2>/dev/null
"""
"""Deletes the element as often as it is put back, for half a minute: looking must not be a race."""
EXTERNAL = """\
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: elsewhere.example}
"""


@pytest.fixture(scope="module", params=["netns", "docker"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, up for the whole module."""
    with cluster_of(TOPOLOGIES / "two-nodes.yaml", request.param, tmp_path_factory.mktemp("seen")) as cluster:
        cluster.up().expect()
        yield cluster


def on(cluster: Cluster, command: str, *args: str | Path) -> Ran:
    """`testbed COMMAND --cluster NAME ARGS`."""
    return cli(command, "--cluster", cluster.name, *args)


def path_of(cluster: Cluster, service: str, *args: str) -> Any:
    return on(cluster, "service", service, "-o", "json", *args).expect().json()


def test_the_path_of_a_service_is_told_in_words(cluster: Cluster) -> None:
    said = on(cluster, "service", "default/web").expect().stdout
    assert said.startswith("default/web: ClusterIP, selects pods with app=web\n")
    assert "Nodes a, b (nftables)\n  80/TCP (http): a connection to the ClusterIP goes to one of 4 endpoints.\n" in said
    assert len(set(re.findall(r"\(web-[a-z0-9-]+ on [ab]\)", said))) == 4


def test_the_path_of_a_service_is_data_too(cluster: Cluster) -> None:
    found = path_of(cluster, "kube-system/kube-dns", "--node", "b")
    assert [node["node"] for node in found["nodes"]] == ["b"]
    assert [port["name"] for port in found["nodes"][0]["ports"]] == ["dns", "dns-tcp"]
    assert {endpoint["state"] for endpoint in found["endpoints"]} == {"ready"}


def test_a_service_that_no_node_serves_says_why(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.yaml").write_text(EXTERNAL)
    on(cluster, "apply", tmp_path / "elsewhere.yaml").expect()
    said = on(cluster, "service", "elsewhere").expect().stdout
    assert "DNS answers with a CNAME, elsewhere.example; no node has anything to do with it" in said
    assert "Node" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("service", "wep"), "there is no Service wep in namespace default; there is web"),
        (("service", "kube-dns"), "there is no Service kube-dns in namespace default; there is kube-system/kube-dns"),
        (("service", "a/b/c"), "'a/b/c' names no Service"),
        (("service", "web", "--node", "x"), "there is no node x; there is a, b"),
        (("proxy", "diff", "x"), "there is no node x; there is a, b"),
    ],
)
def test_what_is_not_there_is_named(cluster: Cluster, words: tuple[str, ...], said: str) -> None:
    ran = on(cluster, *words)
    ran.expect(BAD_INPUT)
    assert said in ran.stderr
    assert ran.stdout == ""


def test_an_element_deleted_by_hand_is_seen_and_put_back(cluster: Cluster) -> None:
    on(cluster, "proxy", "diff", "a").expect(DONE)
    (node,) = path_of(cluster, "web", "--node", "a")["nodes"]
    key = f"{node['ports'][0]['clusterIP']} . tcp . 80"
    vandal = start_cli("exec", "--cluster", cluster.name, "-I", "node/a", "--", "sh", "-c", VANDAL.format(key=key))
    try:
        ran = wait_until(lambda: different(on(cluster, "proxy", "diff", "a")), 60, "a difference that is seen")
    finally:
        vandal.signal(signal.SIGINT)
        vandal.wait(30)
    assert f"+ services {{ {key} : goto lb-4 }}" in ran.stdout.splitlines()
    assert re.search(r"Error: node a \(nftables\): [0-9]+ differences? of what its kernel holds", ran.stderr)
    wait_until(lambda: not on(cluster, "proxy", "diff", "a").code, HEALED_S, "the element that is put back")


def different(ran: Ran) -> Ran | None:
    """Itself, if it saw something."""
    return ran if ran.code == DIFFERENT else None


def test_a_mode_that_the_kernel_cannot_run_is_refused_before_anything_is_made() -> None:
    reason = known(["ipvs"]).get("ipvs")
    if not reason:
        pytest.skip("this kernel has IPVS, or no scratch namespace to look for it")
    refused = unique("e-refused")
    words = ("--runtime", "netns", "--name", refused, "--set", "services.proxy=ipvs")
    ran = cli("up", TOPOLOGIES / "two-nodes.yaml", *words)
    ran.expect(LACKS)
    assert f"proxy mode ipvs of a, b cannot be run here: {reason}\n" in ran.stderr
    assert refused not in cli("status", "-o", "json").stdout


async def test_pods_and_services_are_asked_through_the_api_server(cluster: Cluster) -> None:
    async with cluster.client() as client:
        pods = [name(pod) for pod in (await client.list(POD, "default")).items if name(pod).startswith("netexec-")]
        for pod in pods:
            said = await client.get_raw(f"/api/v1/namespaces/default/pods/{pod}:8080/proxy/hostname")
            assert said.decode().strip() == pod
        said = await client.get_raw("/api/v1/namespaces/default/services/web:http/proxy/")
        assert said
        with pytest.raises(NotFound, match='pods "nobody" not found'):
            await client.get_raw("/api/v1/namespaces/default/pods/nobody/proxy/")


async def test_figures_and_modes_are_reached_through_the_api_server(cluster: Cluster) -> None:
    """A mode per node, switched while the cluster runs; a Service that comes afterwards is counted under both."""
    cluster.set(nodes=[{"name": "a"}, {"name": "b", "proxy": "iptables"}])
    cluster.up().expect()
    async with cluster.client() as client:

        async def switched() -> bool:
            return await client.get_raw("/api/v1/nodes/b:10249/proxy/proxyMode") == b"iptables"

        async def programmed() -> list[dict[str, float]] | None:
            found = [figures(await client.get_raw(f"/api/v1/nodes/{node}:10249/proxy/metrics")) for node in "ab"]
            endpoints = {each["testbed_proxy_endpoints"] for each in found}
            is_done = len(endpoints) == 1 and all(each[PROGRAMMED.format("count")] for each in found)
            return found if is_done else None

        await wait_until_async(switched, HEALED_S, "node b in mode iptables")
        await client.create(LATE)
        a, b = await wait_until_async(programmed, HEALED_S, "the endpoints of a new Service in both kernels")
        health = json.loads(await client.get_raw("/api/v1/nodes/b:10256/proxy/healthz"))
    assert a["testbed_proxy_endpoints"] >= 4
    assert b['kubeproxy_sync_proxy_rules_iptables_total{ip_family="IPv4",table="nat"}'] > 10
    assert "kubeproxy_sync_proxy_rules_iptables_total" not in "".join(a)
    assert all(each[PROGRAMMED.format("sum")] / each[PROGRAMMED.format("count")] < HEALED_S for each in (a, b))
    assert a["process_resident_memory_bytes"] < 60 << 20
    assert health["nodeEligible"] is True
    on(cluster, "proxy", "diff", "b").expect(DONE)


def figures(page: bytes) -> dict[str, float]:
    """Every line of a page of metrics, by name and labels."""
    lines = (line.rpartition(" ") for line in page.decode().splitlines() if not line.startswith("#"))
    return {figure: float(value) for figure, _, value in lines}
