"""Whether a cluster gets a DNS, and what `up` applies for it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from testbed.api.kinds import SERVICE
from testbed.api.objects import metadata, name, namespace, spec
from testbed.dns.objects import CONFIG_ANNOTATION
from testbed.errors import MachineLacks
from testbed.runtime import dns
from testbed.runtime.dns import decided, dns_manifests
from testbed.topology.manifests import Manifest
from testbed.topology.source import Source
from testbed.topology.spec import ClusterSpec, DnsSpec
from tests.unit.agent.specs import cluster, node

FORWARDER = (IPv4Address("203.0.113.53"),)


def asking_for(server: str, *, runtime: str = "netns", forward: tuple[IPv4Address, ...] = ()) -> ClusterSpec:
    return replace(cluster(), runtime=runtime, dns=DnsSpec("cluster.local", server, forward))


def kinds_of(found: list[Manifest]) -> list[str]:
    return [manifest.kind.kind for manifest in found]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which programs are looked for."""
    monkeypatch.setattr(dns, "SYSTEM_PATH", str(tmp_path))
    return tmp_path


def install(programs: Path, name: str) -> None:
    (programs / name).touch(mode=0o755)


def test_auto_is_knot_where_it_is_installed(programs: Path) -> None:
    install(programs, "knotd")
    spec, said = decided(asking_for("auto"))
    assert (spec.dns.server, said) == ("knot", "")


def test_auto_is_none_where_it_is_not_and_says_what_to_install(programs: Path) -> None:
    spec, said = decided(asking_for("auto"))
    assert spec.dns.server == "none"
    assert "no knotd" in said
    assert said.endswith("install knot")


def test_knot_is_insisted_on(programs: Path) -> None:
    with pytest.raises(MachineLacks, match="install knot"):
        decided(asking_for("knot"))


def test_forwarding_needs_unbound_too(programs: Path) -> None:
    install(programs, "knotd")
    with pytest.raises(MachineLacks, match="no unbound; install unbound"):
        decided(asking_for("knot", forward=FORWARDER))


def test_images_have_it_whatever_this_machine_has(programs: Path) -> None:
    assert decided(asking_for("auto", runtime="docker", forward=FORWARDER))[0].dns.is_served


def test_a_cluster_without_workers_has_nobody_to_run_it(programs: Path) -> None:
    install(programs, "knotd")
    outside = replace(asking_for("knot"), nodes=(node("client", 1, role="external"),))
    assert decided(outside)[0].dns.server == "none"


def test_a_cluster_without_dns_gets_no_objects() -> None:
    assert dns_manifests(asking_for("none"), []) == []


def test_the_service_stands_at_the_address_that_pods_are_told() -> None:
    found = dns_manifests(asking_for("knot"), [])
    assert kinds_of(found) == ["ConfigMap", "Service", "Deployment"]
    assert {(namespace(m.object), name(m.object)) for m in found} == {("kube-system", "kube-dns")}
    service = next(m.object for m in found if m.kind == SERVICE)
    assert spec(service)["clusterIP"] == "10.96.0.10"
    assert {(p["port"], p["protocol"]) for p in spec(service)["ports"]} == {(53, "UDP"), (53, "TCP")}


def test_unbound_is_there_only_where_names_are_forwarded() -> None:
    for forward, containers in (((), ["knot", "controller"]), (FORWARDER, ["knot", "controller", "unbound"])):
        deployment = dns_manifests(asking_for("knot", forward=forward), [])[-1].object
        assert [c["name"] for c in spec(deployment)["template"]["spec"]["containers"]] == containers


def test_another_forwarder_makes_new_pods() -> None:
    hashes = set()
    for forward in ((), FORWARDER, (IPv4Address("203.0.113.54"),)):
        deployment = dns_manifests(asking_for("knot", forward=forward), [])[-1].object
        hashes.add(metadata(spec(deployment)["template"])["annotations"][CONFIG_ANNOTATION])
    assert len(hashes) == 3


def test_what_the_manifests_bring_is_left_to_them() -> None:
    meta = {"name": "kube-dns", "namespace": "kube-system"}
    own = Manifest({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {}}, SERVICE, Source("mine.yaml"))
    found = dns_manifests(asking_for("knot"), [own])
    assert kinds_of(found) == ["ConfigMap", "Deployment"]
