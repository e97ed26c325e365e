"""A proxy mode that the machine cannot run is refused, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.errors import MachineLacks
from testbed.runtime.capabilities import IN_THE_IMAGE, PROXY_NEEDS, needs, require_proxies
from testbed.topology.plan import plan
from testbed.topology.schema import ProxyMode, Topology
from testbed.topology.spec import ClusterSpec

ALL_MODES: tuple[str, ...] = ProxyMode.__args__  # type: ignore[attr-defined]


def cluster(*nodes: dict[str, Any], runtime: str = "netns", proxy: str = "nftables") -> ClusterSpec:
    spec = {"nodes": nodes, "services": {"proxy": proxy}}
    doc = {"apiVersion": "testbed/v1", "kind": "Topology", "metadata": {"name": "t"}, "spec": spec}
    return plan(Topology.model_validate(doc), runtime=runtime)


def test_every_mode_has_its_needs() -> None:
    assert set(PROXY_NEEDS) == set(ALL_MODES)


def test_only_what_workers_run_is_asked_for() -> None:
    spec = cluster({"name": "a"}, {"name": "b", "proxy": "iptables"}, {"name": "x", "role": "external"}, proxy="ipvs")
    assert needs(spec.nodes) == ["iptables", "iptables-restore", "ipvs", "nftables"]
    assert needs(cluster({"name": "a"}).nodes) == ["nftables"]


def test_each_mode_that_cannot_be_run_is_told_with_its_nodes_and_reasons() -> None:
    spec = cluster({"name": "w", "count": 6}, {"name": "b", "proxy": "iptables"}, proxy="ipvs")
    reasons = {"ipvs": "the kernel has no IPVS", "nftables": "", "iptables": "no", "iptables-restore": "not installed"}
    with pytest.raises(MachineLacks) as raised:
        require_proxies(spec, reasons)
    assert str(raised.value).splitlines() == [
        "proxy mode ipvs of w-0, w-1, w-2, w-3 and 2 more nodes cannot be run here: the kernel has no IPVS",
        "proxy mode iptables of b cannot be run here: no; not installed",
        "choose another mode; `testbed doctor` shows what this machine can do",
    ]
    assert raised.value.exit_code == 3


def test_programs_that_images_bring_along_are_not_missed_on_docker() -> None:
    reasons = dict.fromkeys(IN_THE_IMAGE, "not installed")
    require_proxies(cluster({"name": "a"}, runtime="docker", proxy="iptables"), reasons)
    with pytest.raises(MachineLacks):
        require_proxies(cluster({"name": "a"}, proxy="iptables"), reasons)


def test_where_nothing_is_known_nothing_is_refused() -> None:
    require_proxies(cluster({"name": "a"}, proxy="ipvs"), {})
