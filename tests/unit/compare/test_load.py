"""Comparison files: read, resolved, and every mistake told at once."""

from pathlib import Path

import pytest

from testbed.compare.load import cluster_name, load_comparison
from testbed.compare.placement import Placement
from testbed.compare.schema import ComparisonFile
from testbed.compare.workloads import NAMESPACE, PORT, workloads
from testbed.errors import BadInput
from testbed.topology.schema import json_schema

ROOT = Path(__file__).parents[3]
TOPOLOGY = """\
apiVersion: testbed/v1
kind: Topology
metadata: {name: t}
spec:
  nodes: [{name: a}, {name: b}, {name: out, role: external}]
"""
COMPARISON = """\
apiVersion: testbed/v1
kind: Comparison
metadata: {name: demo}
spec:
  topology: topology.yaml
  load: {locustfile: load.py}
  baseline: host
  variants:
    host:  {client: {node: a, hostNetwork: true}, target: {node: b, hostNetwork: true}}
    vxlan: {client: {node: a}, target: {node: b}}
"""


def written(directory: Path, comparison: str = COMPARISON, topology: str = TOPOLOGY) -> Path:
    """The files of a comparison; the path of its own."""
    (directory / "topology.yaml").write_text(topology)
    (directory / "load.py").write_text("")
    file = directory / "comparison.yaml"
    file.write_text(comparison)
    return file


def test_the_comparison_of_the_repository_is_four_variants_on_two_clusters() -> None:
    comparison = load_comparison(ROOT / "loadtests" / "hostnetwork-vs-overlay.yaml")
    assert list(comparison.variants) == ["host", "vxlan", "clusterip", "host-gw"]
    assert comparison.primary == ("vxlan", "p50")
    first, second = comparison.clusters
    assert first.variants == ("host", "vxlan", "clusterip")
    assert second.variants == ("host-gw",)
    assert (first.topology.spec.network.backend, second.topology.spec.network.backend) == ("vxlan", "host-gw")
    assert comparison.cluster_of("host-gw") is second


def test_variants_share_pods_where_their_ends_are_the_same() -> None:
    comparison = load_comparison(ROOT / "loadtests" / "hostnetwork-vs-overlay.yaml")
    made = workloads(comparison, comparison.clusters[0], Placement("cross-cpu", 0, 1))
    names = [manifest.object["metadata"]["name"] for manifest in made]
    assert sorted(names) == sorted(
        [NAMESPACE, "load-a", "load-a-host", "probe-a", "probe-b", "web-b", "web-b", "web-b-host"]
    )
    web = next(one.object for one in made if one.object["kind"] == "Pod" and one.object["metadata"]["name"] == "web-b")
    assert web["spec"]["containers"][0]["env"] == [
        {"name": "PORT", "value": str(PORT)},
        {"name": "CPUS", "value": "1"},
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("baseline: host", "baseline: hots", "spec.baseline: is 'hots'"),
        ("load.py", "lost.py", "spec.load.locustfile: is 'lost.py'"),
        ("node: a}, target", "node: z}, target", "spec.variants.vxlan.client.node: is 'z'; the topology has"),
        ("{node: b}}", "{node: out}}", "out is outside the cluster"),
        ("node: b, hostNetwork", "node: a, hostNetwork", "its loopback"),
        ("topology.yaml", "nothing.yaml", "spec.topology: the topology cannot be used"),
        ("client: {node: a}, ", "clinet: {node: a}, ", "did you mean client?"),
        ("target: {node: b}}", "target: {node: b, via: tunnel}}", "via"),
        ("{node: b}}", "{node: b}, set: {network.backend: vxlam}}", "spec.variants.vxlan.set"),
        ("  baseline", "  primary: {variant: host}\n  baseline", "spec.primary.variant"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in COMPARISON
    file = written(tmp_path, COMPARISON.replace(old, new))
    with pytest.raises(BadInput) as caught:
        load_comparison(file)
    assert told in str(caught.value)
    assert f"{file}:" in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = (
        COMPARISON.replace("baseline: host", "baseline: x")
        .replace("load.py", "y.py")
        .replace("node: a}, ", "node: z}, ")
    )
    with pytest.raises(BadInput) as caught:
        load_comparison(written(tmp_path, text))
    assert len(str(caught.value).splitlines()) == 3


def test_a_primary_cell_may_be_named(tmp_path: Path) -> None:
    text = COMPARISON.replace("  baseline", "  primary: {variant: vxlan, metric: cpu}\n  baseline")
    assert load_comparison(written(tmp_path, text)).primary == ("vxlan", "cpu")


def test_cluster_names_stay_within_their_limit() -> None:
    assert cluster_name("demo", 1) == "demo"
    assert cluster_name("demo", 2) == "demo-2"
    assert len(cluster_name("x" * 32, 12)) == 32


def test_the_json_schema_knows_the_keys_of_the_file() -> None:
    schema = json_schema(ComparisonFile)
    assert set(schema["properties"]) == {"apiVersion", "kind", "metadata", "spec"}
    assert "hostNetwork" in schema["$defs"]["Client"]["properties"]
    assert "set" in schema["$defs"]["Variant"]["properties"]
