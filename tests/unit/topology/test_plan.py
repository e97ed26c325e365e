from __future__ import annotations

import json
from ipaddress import IPv4Network
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import BadInput
from testbed.topology.plan import plan
from testbed.topology.schema import Topology, json_schema
from testbed.topology.source import Mistaken
from testbed.topology.spec import ClusterSpec


def topology(nodes: list[dict[str, Any]] | None = None, **spec: Any) -> Topology:
    return Topology.model_validate(
        {
            "apiVersion": "testbed/v1",
            "kind": "Topology",
            "metadata": {"name": "t"},
            "spec": {"nodes": nodes or [{"name": "a"}, {"name": "b"}], **spec},
        }
    )


def cluster(nodes: list[dict[str, Any]] | None = None, running: ClusterSpec | None = None, **spec: Any) -> ClusterSpec:
    return plan(topology(nodes, **spec), runtime="netns", running=running)


names = st.from_regex(r"[a-z]([a-z0-9]{0,8})", fullmatch=True)
nodes_lists = st.lists(
    st.fixed_dictionaries(
        {"name": names},
        optional={"count": st.integers(1, 12), "role": st.sampled_from(["worker", "external"])},
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda node: node["name"],
)


@given(nodes_lists)
def test_no_two_nodes_share_a_name_an_address_a_mac_or_a_pod_cidr(nodes: list[dict[str, Any]]) -> None:
    spec = cluster([{"name": "first"}, *({**node, "name": f"n{node['name']}"} for node in nodes)])
    for values in (
        [node.name for node in spec.nodes],
        [node.address.ip for node in spec.nodes] + [spec.underlay.gateway, spec.underlay.control_plane],
        [node.mac for node in spec.nodes] + [node.vtep_mac for node in spec.nodes if node.vtep_mac],
    ):
        assert len(values) == len(set(values))
    cidrs = [node.pod_cidr for node in spec.nodes if node.pod_cidr]
    assert not any(one.overlaps(other) for one, other in combinations(cidrs, 2))
    assert all(cidr.subnet_of(spec.network.pod_cidr) for cidr in cidrs)


@given(nodes_lists)
def test_a_spec_survives_its_own_json(nodes: list[dict[str, Any]]) -> None:
    spec = cluster([{"name": "first-worker"}, *nodes])
    assert ClusterSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@given(nodes_lists, st.randoms(use_true_random=False))
def test_nodes_that_stay_keep_what_they_have(nodes: list[dict[str, Any]], random: Any) -> None:
    before = cluster([{"name": "first-worker"}, *nodes])
    stay = [node for node in nodes if random.random() < 0.5]
    random.shuffle(stay)
    after = cluster([{"name": "newcomer", "count": 3}, {"name": "first-worker"}, *stay], running=before)
    had = {node.name: node for node in before.nodes}
    for node in after.nodes:
        assert node == had.get(node.name, node)
    assert len({node.address for node in after.nodes}) == len(after.nodes)


def test_a_node_that_is_no_more_is_asked_for_in_vain() -> None:
    left = cluster([{"name": "a"}], running=cluster())
    assert left.node("a").name == "a"
    with pytest.raises(BadInput, match="cluster t has no node b"):
        left.node("b")


def test_a_node_that_moves_outside_the_cluster_gets_an_address_there() -> None:
    before = cluster([{"name": "a"}, {"name": "b"}])
    after = cluster([{"name": "a"}, {"name": "b", "role": "external"}], running=before)
    assert after.nodes[1].address.ip in after.underlay.outside_cidr
    assert after.nodes[1].pod_cidr is None


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"underlay": {"cidr": "10.10.0.0/24"}}, ("underlay", "cidr")),
        ({"network": {"podCIDR": "10.10.0.0/16"}}, ("network", "podCIDR")),
        ({"services": {"cidr": "10.10.0.0/24"}}, ("services", "cidr")),
        ({"services": {"nodePortRange": "20000-20100"}}, ("services", "nodePortRange")),
        ({"dns": {"domain": "elsewhere.local"}}, ("dns", "domain")),
    ],
)
def test_what_a_running_cluster_is_built_on_cannot_change_in_place(
    changed: dict[str, Any], where: tuple[str, ...]
) -> None:
    assert cluster(**changed)
    with pytest.raises(Mistaken, match="run `testbed down t` first") as raised:
        cluster(running=cluster(), **changed)
    assert [mistake.loc for mistake in raised.value.mistakes] == [("spec", *where)]


def test_backend_and_mtu_may_change_in_place() -> None:
    after = cluster(running=cluster(), network={"backend": "host-gw", "mtu": 1400})
    assert (after.network.backend, after.network.pod_mtu) == ("host-gw", 1400)


def test_the_addresses_of_a_plain_cluster_are_those_of_the_textbook() -> None:
    spec = cluster([{"name": "a"}, {"name": "w", "count": 2}, {"name": "client", "role": "external"}])
    assert [node.name for node in spec.nodes] == ["a", "w-0", "w-1", "client"]
    assert [str(node.address) for node in spec.nodes] == [
        "198.18.0.10/16", "198.18.0.11/16", "198.18.0.12/16", "203.0.113.10/24",
    ]  # fmt: skip
    assert [str(node.pod_cidr) for node in spec.nodes] == ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "None"]
    assert (str(spec.underlay.gateway), str(spec.underlay.control_plane)) == ("198.18.0.1", "198.18.0.2")
    assert (str(spec.services.kubernetes), str(spec.services.dns)) == ("10.96.0.1", "10.96.0.10")
    assert spec.host("here").switch == spec.underlay.gateway
    assert len(spec.nodes_of("here")) == 4


def test_macs_are_unicast_and_locally_administered() -> None:
    for node in cluster().nodes:
        first = int(node.mac.split(":")[0], 16)
        assert first & 0b10
        assert not first & 0b1


@pytest.mark.parametrize(
    ("network", "pod_mtu"),
    [({"backend": "vxlan"}, 1450), ({"backend": "host-gw"}, 1500), ({"backend": "vxlan", "mtu": 1400}, 1400)],
)
def test_pods_get_what_the_underlay_leaves(network: dict[str, Any], pod_mtu: int) -> None:
    assert cluster(network=network).network.pod_mtu == pod_mtu


@pytest.mark.parametrize(
    ("spec", "where", "what"),
    [
        ({"nodes": [{"name": "a", "count": 300}]}, ("network", "podCIDR"), "room for 256 workers"),
        ({"network": {"podCIDR": "10.0.0.0/25"}}, ("network", "podCIDR"), "room for 0 workers"),
        ({"underlay": {"cidr": "10.9.0.0/28"}, "nodes": [{"name": "a", "count": 6}]}, ("underlay", "cidr"), "for 5"),
        ({"nodes": [{"name": "a"}, {"name": "x", "role": "external", "count": 300}]}, ("nodes",), "for 245 ext"),
        ({"network": {"podCIDR": "198.18.0.0/16"}}, ("network", "podCIDR"), "198.18.0.0/16 of spec.underlay"),
        ({"services": {"cidr": "10.244.9.0/24"}}, ("services", "cidr"), "overlaps 10.244.0.0/16"),
        ({"network": {"podCIDR": "203.0.0.0/16"}}, ("network", "podCIDR"), "where external nodes live"),
        ({"services": {"cidr": "10.96.0.0/29"}}, ("services", "cidr"), "/28 or larger"),
        ({"network": {"mtu": 1451}}, ("network", "mtu"), "at most 1450"),
        ({"underlay": {"mtu": 600}}, ("underlay", "mtu"), "use 626 or more"),
        ({"nodes": [{"name": "w-0"}, {"name": "w", "count": 1}]}, ("nodes", 1, "name"), "second node is called w-0"),
        ({"nodes": [{"name": "switch"}]}, ("nodes", 0, "name"), "choose another"),
        ({"nodes": [{"name": "a", "role": "external"}]}, ("nodes",), "none of the nodes is a worker"),
        ({"nodes": [{"name": "a", "host": "there"}]}, ("nodes", 0, "host"), "no host there"),
        ({"nodes": [{"name": "a"}, {"name": "x", "role": "external", "proxy": "ipvs"}]}, ("nodes", 1, "proxy"), "Serv"),
        ({"services": {"nodePortRange": "8000-9000"}}, ("services", "nodePortRange"), "holds 8472, where every node"),
        ({"services": {"nodePortAddresses": ["192.168.0.0/16"]}}, ("services", "nodePortAddresses", 0), "no node has"),
        ({"services": {"nodePortAddresses": ["127.0.0.0/8"]}}, ("services", "nodePortAddresses", 0), "no node has"),
        ({"services": {"nodePortAddresses": ["fd00::/64"]}}, ("services", "nodePortAddresses", 0), "IPv6 is not"),
        ({"services": {"loadBalancerCIDR": "10.96.8.0/24"}}, ("services", "loadBalancerCIDR"), "overlaps 10.96.0.0/16"),
        ({"services": {"loadBalancerCIDR": "203.0.113.0/28"}}, ("services", "loadBalancerCIDR"), "where external nod"),
        ({"dns": {"forward": ["10.96.0.10"]}}, ("dns", "forward", 0), "would ask itself"),
        ({"dns": {"forward": ["203.0.113.10", "192.0.2.53"]}}, ("dns", "forward", 1), "cannot be reached"),
        ({"dns": {"server": "none", "forward": ["203.0.113.10"]}}, ("dns", "forward"), "nobody would forward"),
    ],
)  # fmt: skip
def test_a_topology_that_cannot_be_built_says_where_and_why(
    spec: dict[str, Any], where: tuple[str | int, ...], what: str
) -> None:
    with pytest.raises(Mistaken) as raised:
        cluster(**spec)
    (mistake,) = raised.value.mistakes
    assert mistake.loc == ("spec", *where)
    assert what in mistake.sentence


@pytest.mark.parametrize(
    "spec",
    [
        {"hosts": [{"name": "here"}, {"name": "there"}]},
        {"hosts": [{"name": "there", "docker": "ssh://lab@there"}]},
        {"nodes": [{"name": "a", "link": {"rate": "10gbit", "delay": "200us", "loss": "0.01%"}}]},
        {"underlay": {"segmentation": "wire"}},
        {"underlay": {"uplink": True}},
        {"underlay": {"cidr": ["198.18.0.0/16", "fd00::/64"]}},
        {"network": {"backend": "wireguard"}},
    ],
)
def test_what_is_not_built_yet_is_refused_and_never_ignored(spec: dict[str, Any]) -> None:
    with pytest.raises(Mistaken, match="not available yet"):
        cluster(**spec)


def test_a_node_may_have_a_proxy_mode_of_its_own() -> None:
    nodes = [{"name": "a"}, {"name": "b", "proxy": "iptables"}]
    spec = cluster(nodes=nodes, services={"proxy": "ipvs"})
    assert [node.proxy for node in spec.nodes] == ["ipvs", "iptables"]


@pytest.mark.parametrize("networks", [["0.0.0.0/0"], ["198.18.0.0/16", "10.244.0.0/16"], ["198.18.0.10/32"]])
def test_node_ports_may_be_served_where_nodes_have_addresses(networks: list[str]) -> None:
    spec = cluster(services={"nodePortAddresses": networks})
    assert [str(network) for network in spec.services.node_port_addresses] == networks


def test_what_proxies_follow_may_change_in_place() -> None:
    services = {"proxy": "iptables", "nodePortAddresses": ["0.0.0.0/0"], "loadBalancerCIDR": "10.97.0.0/24"}
    assert cluster(running=cluster(), services=services).services.proxy == "iptables"


def test_defaults_in_the_schema_are_written_as_a_file_has_them() -> None:
    services = json_schema(Topology)["$defs"]["Services"]["properties"]
    assert services["nodePortRange"]["default"] == "30000-32767"
    assert services["cidr"]["default"] == ["10.96.0.0/16"]


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(Mistaken) as raised:
        cluster(network={"backend": "udp"}, underlay={"segmentation": "wire", "uplink": True})
    assert len(raised.value.mistakes) == 3


def test_a_list_of_one_network_is_that_network() -> None:
    assert cluster(network={"podCIDR": ["10.1.0.0/16"]}).network.pod_cidr == IPv4Network("10.1.0.0/16")
