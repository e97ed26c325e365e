"""/etc/hosts and /etc/resolv.conf of a pod, to the letter, as a kubelet writes them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from testbed.agent.etcfiles import hosts, kernel_hostname, resolv_conf
from testbed.topology.spec import ClusterSpec, DnsSpec
from tests.unit.agent.specs import cluster, node, pod

ADDRESS = "10.244.1.2"
LOCAL = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""
OWN = f"# Kubernetes-managed hosts file.\n{LOCAL}"
CLUSTER_FIRST = """\
search default.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.96.0.10
options ndots:5
"""
NO_RESOLVER = "search .\nnameserver 127.0.0.1\n"
FORWARDS = (IPv4Address("203.0.113.53"), IPv4Address("203.0.113.54"))


def with_dns(server: str = "knot", forward: tuple[IPv4Address, ...] = ()) -> ClusterSpec:
    return replace(cluster(), dns=DnsSpec("cluster.local", server, forward))


def hosts_of(**fields: Any) -> str:
    return hosts(pod(**fields), ADDRESS, with_dns(), node("a", 1))


def test_a_pod_knows_its_own_name() -> None:
    assert hosts_of() == f"{OWN}{ADDRESS}\tweb\n"


def test_a_pod_with_a_subdomain_knows_its_full_name_first() -> None:
    """`hostname -f` prints the first name of the line."""
    assert hosts_of(hostname="one", subdomain="peers") == (
        f"{OWN}{ADDRESS}\tone.peers.default.svc.cluster.local\tone\n"
    )


def test_aliases_follow_under_a_heading_of_their_own() -> None:
    aliases = [{"ip": "192.0.2.1", "hostnames": ["foo", "bar"]}, {"ip": "192.0.2.2", "hostnames": ["baz"]}]
    added = "\n# Entries added by HostAliases.\n192.0.2.1\tfoo\tbar\n192.0.2.2\tbaz\n"
    assert hosts_of(hostAliases=aliases) == f"{OWN}{ADDRESS}\tweb\n{added}"


def test_a_pod_on_its_nodes_network_sees_the_nodes_hosts_and_its_own_aliases() -> None:
    text = hosts_of(hostNetwork=True, hostAliases=[{"ip": "192.0.2.1", "hostnames": ["foo"]}])
    head = f"# Kubernetes-managed hosts file (host network).\n{LOCAL}198.18.0.11\ta\n"
    assert text == f"{head}\n# Entries added by HostAliases.\n192.0.2.1\tfoo\n"


def test_the_hostname_is_one_label_unless_the_pod_wants_all_of_it() -> None:
    domain = "cluster.local"
    assert kernel_hostname(pod("a" * 70), domain) == "a" * 63
    assert kernel_hostname(pod(hostname="one", subdomain="peers"), domain) == "one"
    full = pod(hostname="one", subdomain="peers", setHostnameAsFQDN=True)
    assert kernel_hostname(full, domain) == "one.peers.default.svc.cluster.local"
    assert kernel_hostname(pod(setHostnameAsFQDN=True), domain) == "web"


def test_names_are_asked_of_the_clusters_dns() -> None:
    assert resolv_conf(pod(), with_dns()) == CLUSTER_FIRST
    assert resolv_conf(pod(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"), with_dns()) == CLUSTER_FIRST


@pytest.mark.parametrize("fields", [{"dnsPolicy": "Default"}, {"hostNetwork": True}])
def test_the_nodes_own_resolver_is_whom_the_topology_forwards_to(fields: dict[str, Any]) -> None:
    assert resolv_conf(pod(**fields), with_dns(forward=FORWARDS)) == "".join(f"nameserver {ip}\n" for ip in FORWARDS)
    assert resolv_conf(pod(**fields), with_dns()) == NO_RESOLVER


def test_without_a_dns_no_server_is_named_that_is_not_there() -> None:
    assert resolv_conf(pod(), with_dns("none")) == NO_RESOLVER


def test_dns_none_is_just_what_the_pod_says() -> None:
    config = {
        "nameservers": ["192.0.2.53"],
        "searches": ["example.com"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    text = resolv_conf(pod(dnsPolicy="None", dnsConfig=config), with_dns())
    assert text == "search example.com\nnameserver 192.0.2.53\noptions ndots:2 edns0\n"


def test_dns_config_is_added_to_the_policys_and_has_the_last_word_about_options() -> None:
    config = {
        "nameservers": ["192.0.2.53", "10.96.0.10"],
        "searches": ["example.com", "cluster.local"],
        "options": [{"name": "ndots", "value": "1"}, {"name": "rotate"}],
    }
    assert resolv_conf(pod(dnsConfig=config), with_dns()) == (
        "search default.svc.cluster.local svc.cluster.local cluster.local example.com\n"
        "nameserver 10.96.0.10\nnameserver 192.0.2.53\noptions ndots:1 rotate\n"
    )


def test_what_exceeds_the_limits_is_left_out() -> None:
    config = {"nameservers": [f"192.0.2.{i}" for i in range(3)], "searches": [f"{i}.example.com" for i in range(40)]}
    search, *others = resolv_conf(pod(dnsConfig=config), with_dns()).splitlines()
    assert len(search.split()) == 33
    assert others == ["nameserver 10.96.0.10", "nameserver 192.0.2.0", "nameserver 192.0.2.1", "options ndots:5"]
    long = {"searches": [f"{i:03}.{'x' * 60}.{'y' * 60}.{'z' * 60}.example.com" for i in range(20)]}
    assert len(resolv_conf(pod(dnsConfig=long), with_dns()).splitlines()[0]) <= len("search ") + 2048
