"""Which containers a cluster consists of, and what each may do."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Interface

import pytest

from testbed.agent.docker_names import AGENT, CONTROL_PLANE, DAEMON, IMAGES_VARIABLE, NODE, SWITCH, Names
from testbed.runtime.docker_objects import Found
from testbed.runtime.docker_parts import Ground, Part, chains
from testbed.topology.plan import plan
from testbed.topology.schema import Topology
from testbed.topology.spec import ClusterSpec

IMAGES = {"testbed/pause": "testbed/pause:1", "testbed/daemon": "testbed/daemon:1"}
GROUND = Ground(IMAGES, "/run/docker.sock", {"net.bridge.bridge-nf-call-iptables": "0"})


@pytest.fixture
def spec() -> ClusterSpec:
    nodes = [{"name": "a"}, {"name": "b"}, {"name": "client", "role": "external"}]
    document = {"apiVersion": "testbed/v1", "kind": "Topology", "metadata": {"name": "lab"}, "spec": {"nodes": nodes}}
    return plan(Topology.model_validate(document), runtime="docker")


@pytest.fixture
def parts(spec: ClusterSpec) -> list[Part]:
    return [part for chain in chains(spec, GROUND) for part in chain]


def test_there_is_a_container_for_each_part_and_no_more(parts: list[Part]) -> None:
    assert sorted(part.role for part in parts) == sorted(
        [SWITCH, AGENT, CONTROL_PLANE, NODE, NODE, NODE, DAEMON, DAEMON]
    )
    assert len({part.name for part in parts}) == len(parts)


def test_who_joins_a_namespace_comes_right_after_its_holder(spec: ClusterSpec) -> None:
    for chain in chains(spec, GROUND):
        for before, part in zip((None, *chain), chain, strict=False):
            assert part.joins == (before.name if before else "")
            assert bool(part.joins) != bool(part.network)


def test_only_the_agent_has_the_engine_and_sees_other_processes(parts: list[Part]) -> None:
    assert [part.role for part in parts if any(bind.startswith("/run/docker.sock:") for bind in part.binds)] == [AGENT]
    assert [part.role for part in parts if part.sees_host_processes] == [AGENT]


def test_holders_and_control_plane_have_no_capability(parts: list[Part]) -> None:
    assert {part.role for part in parts if part.capabilities} == {AGENT, DAEMON}


def test_only_the_switch_can_write_the_bootstrap_directory(parts: list[Part]) -> None:
    volume = Names("lab").bootstrap
    binds = {part.role: bind for part in parts for bind in part.binds if bind.startswith(f"{volume}:")}
    assert {role for role, bind in binds.items() if not bind.endswith(":ro")} == {SWITCH}
    assert set(binds) == {SWITCH, AGENT, CONTROL_PLANE, DAEMON}


def test_a_router_forwards_and_a_machine_outside_does_not(parts: list[Part]) -> None:
    forwards = {part.hostname: part.sysctls.get("net.ipv4.ip_forward") for part in parts if part.role in (SWITCH, NODE)}
    assert forwards == {"switch": "1", "a": "1", "b": "1", "client": None}


def test_the_agent_is_told_what_image_names_mean(parts: list[Part]) -> None:
    agent = next(part for part in parts if part.role == AGENT)
    assert json.loads(agent.environment[IMAGES_VARIABLE]) == IMAGES


def test_a_new_image_replaces_daemons_and_leaves_holders(spec: ClusterSpec, parts: list[Part]) -> None:
    ground = replace(GROUND, images={name: f"{name}:2" for name in IMAGES})
    after = [part for chain in chains(spec, ground) for part in chain]
    changed = {new.role for old, new in zip(parts, after, strict=True) if old.fingerprint != new.fingerprint}
    assert changed == {AGENT, CONTROL_PLANE, DAEMON}


def test_an_address_of_a_node_changes_no_container(spec: ClusterSpec, parts: list[Part]) -> None:
    moved = replace(spec.nodes[0], address=IPv4Interface("198.18.0.99/16"))
    after = [part for chain in chains(replace(spec, nodes=(moved, *spec.nodes[1:])), GROUND) for part in chain]
    assert [part.fingerprint for part in after] == [part.fingerprint for part in parts]


def test_a_daemon_whose_holder_was_made_anew_is_not_as_wanted(parts: list[Part]) -> None:
    daemon = next(part for part in parts if part.role == DAEMON)
    labels = {"testbed.fingerprint": daemon.fingerprint}
    found = Found("2", daemon.name, is_running=True, labels=labels, network_mode="container:1")
    assert found.is_as_wanted(daemon, "1")
    assert not found.is_as_wanted(daemon, "3")


def test_names_of_different_clusters_never_clash() -> None:
    assert Names("x").place("a-b") != Names("x-a").place("b")
    assert Names("x").place("agent") != Names("x").container(AGENT)
