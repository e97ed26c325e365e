"""Measurements of a machine that never was: known effects under noise that all variants of a round share."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict

from testbed.compare.environment import Environment, VariantInfo
from testbed.compare.measurement import Measurement, Slot, measurement, phase
from testbed.compare.schedule import CONTROL, rounds
from testbed.compare.stopping import Pace
from testbed.loadgen.records import CpuUse, Histogram, TrialResult

EFFECTS_US: Mapping[str, float] = {"host": 0.0, "vxlan": 9.4, "clusterip": 11.0, "host-gw": 4.1, CONTROL: 0.0}
BASE_US = 60.0
WINDOW_S = 2.0


def environment() -> Environment:
    """Of the comparison in loadtests/, with one node's devices."""
    spec = {
        "nodes": [{"name": "a", "address": "198.18.0.10/16"}, {"name": "b", "address": "198.18.0.11/16"}],
        "underlay": {"cidr": "198.18.0.0/16", "mtu": 1500, "segmentation": "offload"},
        "services": {"proxy": "nftables"},
    }
    clusters = {
        "demo": {**spec, "network": {"backend": "vxlan"}},
        "demo-2": {**spec, "network": {"backend": "host-gw"}},
    }
    eth0 = {"mtu": 1500, "offloads": ["tso", "gso"], "rx_packets": 1}
    return Environment(
        name="demo",
        baseline="host",
        primary=("vxlan", "p50"),
        variants={
            "host": variant(is_host=True),
            "vxlan": variant(),
            "clusterip": variant(via="service"),
            "host-gw": variant(cluster="demo-2"),
        },
        clusters=clusters,
        locustfile="http_get.py",
        users=16,
        placement={"name": "cross-cpu", "client": 0, "server": 1, "nice": {"generator": [-10], "server": [-10]}},
        pace=asdict(Pace()),
        seed=7,
        command="testbed compare loadtests/hostnetwork-vs-overlay.yaml --seed 7",
        started="2026-01-01T00:00:00Z",
        machine={"kernel": "6.18", "cpu": "Any", "cpus": 2, "versions": {"locust": "2.47.0"}},
        devices={"demo": {"a": {"devices": {"eth0": eth0}, "conntrack": 3}}},
        ended="2026-01-01T00:05:00Z",
        stopped="precise enough after 12 rounds",
    )


def variant(*, is_host: bool = False, via: str = "pod", cluster: str = "demo") -> VariantInfo:
    """From node a to node b."""
    return VariantInfo(
        client_node="a",
        client_host_network=is_host,
        target_node="b",
        target_host_network=is_host,
        via=via,
        settings={} if cluster == "demo" else {"network.backend": "host-gw"},
        cluster=cluster,
        client_address="198.18.0.10" if is_host else "10.244.0.2",
        target_address="198.18.0.11" if is_host else "10.244.1.2",
        url="http://10.244.1.2:9080",
        path="proven",
        path_detail="153 packets in VXLAN",
    )


def result(p50_us: float, chance: random.Random, *, count: int = 20_000, errors: int = 0) -> TrialResult:
    """A window whose median latency is about `p50_us`, with a tail to the right."""
    latency = Histogram.of(Counter(round(p50_us * chance.lognormvariate(0, 0.25)) for _ in range(2_000)))
    busy = round(WINDOW_S * 1e6 * 0.9 * p50_us / BASE_US / 5)
    cpus = tuple(CpuUse(cpu, busy_us=busy, softirq_us=100_000, steal_us=0) for cpu in (0, 1))
    rate = count / WINDOW_S / 10
    batches = tuple(round(rate * factor) for factor in (0.6, 0.9, 1, 1, 1, *(1,) * 20))
    return TrialResult(WINDOW_S, count, errors, "", latency.encode(), cpus, busy, batches, 0.5, steady=True)


def measurements(count: int = 12, seed: int = 1, effects: Mapping[str, float] = EFFECTS_US) -> list[Measurement]:
    """`count` rounds; the machine drifts, and everything in a round drifts with it."""
    chance = random.Random(seed)
    made = []
    for number, order in zip(range(1, count + 1), rounds(list(effects), seed), strict=False):
        drift = chance.lognormvariate(0, 0.05)
        for position, name in enumerate(order):
            p50 = (BASE_US + effects[name]) * drift * chance.lognormvariate(0, 0.004)
            slot = Slot(number, position, name, "demo", "2026-01-01T00:00:00.000000Z")
            lone = phase(1, result(p50, chance), server_us=100_000)
            made.append(measurement(slot, lone, phase(16, result(4 * p50, chance), server_us=round(25_000 * p50)), ()))
    return made
