from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import BadInput
from testbed.topology.load import load, load_topology, read
from testbed.topology.manifests import load_manifests
from testbed.topology.plan import plan
from testbed.topology.schema import Topology, json_schema

TOPOLOGIES = Path(__file__).parents[3] / "topologies"

GOOD = """\
apiVersion: testbed/v1
kind: Topology
metadata: {name: good}
spec:
  nodes:
    - {name: a}
"""


def written(directory: Path, text: str) -> Path:
    file = directory / "t.yaml"
    file.write_text(text)
    return file


def mistakes(directory: Path, text: str) -> list[str]:
    with pytest.raises(BadInput) as raised:
        load_topology(written(directory, text))
    return [line.removeprefix(f"{directory}/") for line in str(raised.value).splitlines()]


@pytest.mark.parametrize("file", sorted(TOPOLOGIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_topology_of_the_repository_can_be_planned_and_asks_a_question(file: Path) -> None:
    loaded = load_topology(file)
    assert plan(loaded.model, runtime="netns").name == file.stem
    assert load_manifests([file.parent / name for name in loaded.model.spec.manifests])
    opening = file.read_text().split("\n\n")[0].split("#\n")[0]
    assert opening.startswith("# ")
    assert "?" in opening


def test_the_topology_of_the_design_is_understood(tmp_path: Path) -> None:
    text = GOOD.replace(
        "    - {name: a}\n",
        """\
    - {name: a, host: here, labels: {topology.kubernetes.io/zone: z1}}
    - {name: b, host: there, link: {rate: 10gbit, delay: 200us, loss: 0.01%}}
    - {name: w, count: 20}
    - {name: client, role: external}
  runtime: auto
  hosts:
    - {name: here}
    - {name: there, docker: "ssh://lab@there", address: 192.0.2.7}
  underlay: {cidr: 198.18.0.0/16, mtu: 1500, segmentation: offload}
  network: {backend: vxlan, podCIDR: 10.244.0.0/16, mtu: auto}
  services: {proxy: nftables, cidr: [10.96.0.0/16, "fd00:96::/112"], loadBalancerCIDR: 198.19.0.0/24}
  dns: {domain: cluster.local}
  images: {"nginx:*": testbed/web}
  manifests: [web.yaml]
""",
    )
    spec = load_topology(written(tmp_path, text)).model.spec
    assert len(spec.expanded()) == 23
    link = spec.nodes[1].link
    assert link is not None
    assert (link.rate, link.delay, link.loss) == (10**10, 200, 0.0001)


def test_every_mistake_is_told_with_its_line_path_and_way_out(tmp_path: Path) -> None:
    text = """\
apiVersion: testbed/v1
kind: Topology
metadata: {name: Two_}
spec:
  nodez: 3
  nodes:
    - {name: a, labels: {zone: 1}}
    - name: b
      cout: 2
      role: exernal
    - {name: w, count: 0}
  network:
    backend: vxlam
    mtu: aut
    podCIDR: 10.244.0.1/16
  dns: cluster.local
"""
    assert mistakes(tmp_path, text) == [
        "t.yaml:3: metadata.name: is 'Two_'; a name has lower-case letters, digits and '-', and no '-' at its ends",
        "t.yaml:5: spec.nodez: is not a key that is known here; did you mean nodes?",
        "t.yaml:7: spec.nodes[0].labels.zone: is 1, and must be text such as z1",
        "t.yaml:9: spec.nodes[1].cout: is not a key that is known here; did you mean count?",
        "t.yaml:10: spec.nodes[1].role: is 'exernal', and must be worker or external; did you mean external?",
        "t.yaml:11: spec.nodes[2].count: is 0, and must be at least 1",
        "t.yaml:13: spec.network.backend: is 'vxlam', and must be vxlan, host-gw, ipip, udp, wireguard, geneve or gre;"
        " did you mean vxlan?",
        "t.yaml:14: spec.network.mtu: is 'aut', and must be auto or a number from 576 to 65535",
        "t.yaml:15: spec.network.podCIDR: is '10.244.0.1/16', and no network: 10.244.0.1/16 has host bits set;"
        " write it as in 10.244.0.0/16",
        "t.yaml:16: spec.dns: is 'cluster.local', and must be a mapping (key: value)",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds 0 YAML documents; exactly one is expected"),
        (f"{GOOD}---\n{GOOD}", "holds 2 YAML documents; exactly one is expected"),
        ("a: [1\nb: 2\n", ":2: is not valid YAML: while parsing a flow sequence"),
        ("a: \x00\n", "is not valid YAML: "),
        ("a: 1\na: 2\n", ":1: a: stands twice, in lines 1 and 2; keep one"),
        ("1: 2\n", ":1: 1: is a key that is no string; put it in quotes"),
        ("? {a: b}\n: 2\n", "is a key that is no string"),
        ("a: &x [*x]\n", "refers to itself; write the value out"),
        ("- 1\n", "is [1], and must be a mapping (key: value)"),
        ("a: !!python/object:os.system {}\n", "is not valid YAML: could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_topology_at_all_is_refused_with_a_sentence(tmp_path: Path, text: str, told: str) -> None:
    assert told in "\n".join(mistakes(tmp_path, text))


def test_a_file_of_the_other_kind_is_sent_where_it_belongs(tmp_path: Path) -> None:
    text = "apiVersion: testbed/v1\nkind: Comparison\nmetadata: {name: x}\nspec: {baseline: host}\n"
    assert mistakes(tmp_path, text) == ["t.yaml:2: kind: is Comparison: that is what `testbed compare` takes"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no-such.yaml: cannot be read: No such file or directory"):
        load_topology(tmp_path / "no-such.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="is not a text file"):
        load_topology(tmp_path / "binary")


def test_a_setting_of_a_variant_changes_the_topology_and_is_checked_like_it(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD)
    assert load_topology(file, {"network.backend": "host-gw"}).model.spec.network.backend == "host-gw"
    with pytest.raises(BadInput, match="did you mean backend"):
        load_topology(file, {"network.backendd": "host-gw"})
    with pytest.raises(BadInput, match="nothing of that name"):
        load_topology(file, {"nodes.0.name": "x"})


def test_mistakes_of_a_plan_are_put_on_their_lines(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, GOOD + "  network: {backend: gre}\n"), Topology)
    with (
        pytest.raises(BadInput, match=r"t.yaml:7: spec.network.backend: gre is not available yet"),
        loaded.source.blamed(),
    ):
        plan(loaded.model, runtime="netns")


def test_dates_stay_text_and_merge_keys_work(tmp_path: Path) -> None:
    file = written(tmp_path, "base: &b {x: 2024-01-01}\nuse: {<<: *b, y: 2}\n")
    assert read(file)[0].value["use"] == {"x": "2024-01-01", "y": 2}


def test_the_json_schema_knows_every_key_and_refuses_others() -> None:
    schema = json_schema(Topology)
    assert schema["properties"].keys() == {"apiVersion", "kind", "metadata", "spec"}
    spec = schema["$defs"]["TopologySpec"]
    assert spec["additionalProperties"] is False
    assert "podCIDR" in schema["$defs"]["Network"]["properties"]


def test_mistakes_of_manifests_are_told_together(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(
        """\
apiVersion: v1
kind: Pood
metadata: {name: a, labels: {a: 1}}
---
apiVersion: v1
metadata: {generateName: x}
spec: []
---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Pod, metadata: {name: b}}
  - 3
---
- a
"""
    )
    with pytest.raises(BadInput) as raised:
        load_manifests([file, tmp_path / "none.yaml"])
    told = str(raised.value).replace(f"{tmp_path}/", "").splitlines()
    assert told == [
        "m.yaml:2: kind: no kind 'Pood' is served in apiVersion 'v1'; did you mean Pod in v1?",
        "m.yaml:3: metadata.labels.a: is 1, and must be text; put it in quotes",
        "m.yaml:5: kind must be given, as in apiVersion: v1, kind: Pod",
        "m.yaml:7: spec: is [], and must be a mapping (key: value)",
        "m.yaml:6: metadata.generateName: an object of a manifest needs a name of its own, so that it can be found"
        " again; give a name",
        "m.yaml:13: items[1]: a Kubernetes object is a mapping with apiVersion, kind and metadata; this is 3",
        "m.yaml:15: a Kubernetes object is a mapping with apiVersion, kind and metadata; this is ['a']",
        "none.yaml: cannot be read: No such file or directory",
    ]


def test_the_same_object_twice_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"
    file.write_text(f"{pod}---\n{pod}")
    with pytest.raises(BadInput, match=r"m.yaml:7: metadata.name: Pod a stands in .*m.yaml:1 already; keep one"):
        load_manifests([file])


def test_items_of_a_list_are_objects_with_a_place_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: Pod\n    metadata: {name: a}\n")
    (manifest,) = load_manifests([file])
    assert manifest.told(("metadata", "name"), "is odd").endswith("m.yaml:6: items[0].metadata.name: is odd")
