"""What a proxy shows of itself."""

from __future__ import annotations

import re

import pytest

from testbed.api.objects import Object
from testbed.api.wellknown import LAST_CHANGE_TRIGGER_TIME
from testbed.errors import KernelError
from testbed.node.changes import Changes
from testbed.node.exposition import render
from testbed.node.seen import Seen
from tests.unit.node.ports import WEB, virtual_port

BEGAN_S = 1_000_000.0


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now_s = BEGAN_S

    def __call__(self) -> float:
        return self.now_s


def figures(seen: Seen) -> dict[str, float]:
    """Every line of the page, by name and labels."""
    lines = [line for line in render(seen.families()).splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r'[a-z_]+(\{([a-z_]+="[^"]*",?)+\})? [-0-9.e+]+', line) for line in lines)
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def slice_(trigger: str = "") -> Object:
    annotations = {LAST_CHANGE_TRIGGER_TIME: trigger} if trigger else {}
    return {"metadata": {"name": "web-x", "namespace": "default", "annotations": annotations}}


def test_full_and_partial_syncs_are_told_apart_and_a_look_is_neither() -> None:
    seen = Seen(Changes())
    for is_full in (True, False, False, None):
        with seen.syncing("nftables") as sync:
            sync.is_full = is_full
    found = figures(seen)
    count = 'proxy_rules_duration_seconds_count{ip_family="IPv4"}'
    assert [found[f"kubeproxy_sync_{kind}{count}"] for kind in ("", "full_", "partial_")] == [3, 1, 2]


def test_a_sync_that_fails_counts_under_the_name_of_its_mode_and_leaves_what_was_known() -> None:
    seen = Seen(Changes())
    with seen.syncing("nftables") as sync:
        sync.ports = {WEB: (virtual_port("10.244.0.2:80"),)}
    for mode in ("iptables", "iptables", "nftables-kubeproxy"):
        with pytest.raises(KernelError), seen.syncing(mode):
            raise KernelError("no")
    found = figures(seen)
    assert found['kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family="IPv4"}'] == 2
    assert found['kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"}'] == 1
    assert (seen.mode, found["testbed_proxy_services"]) == ("nftables", 1)


def test_latency_runs_from_the_trigger_time_to_the_end_of_the_sync() -> None:
    clock = Clock()
    changes = Changes(clock)
    seen = Seen(changes, now_s=clock)
    changes.slice_changed(WEB, None, slice_("1970-01-12T13:46:41.5Z"))
    clock.now_s += 4
    with seen.syncing("nftables"):
        changes.slice_changed(WEB, None, slice_("1970-01-12T13:46:42Z"))
    found = figures(seen)
    name = "kubeproxy_network_programming_duration_seconds"
    assert found[f'{name}_sum{{ip_family="IPv4"}}'] == 2.5
    assert found[f'{name}_bucket{{ip_family="IPv4",le="2"}}'] == 0
    assert found[f'{name}_bucket{{ip_family="IPv4",le="3"}}'] == 1
    with seen.syncing("nftables"):
        pass
    assert figures(seen)[f'{name}_count{{ip_family="IPv4"}}'] == 2


def test_what_was_there_before_a_node_came_was_not_late_on_its_account() -> None:
    clock = Clock()
    changes = Changes(clock)
    changes.slice_changed(WEB, None, slice_("1970-01-12T13:46:41.5Z"))
    clock.now_s += 600
    seen = Seen(changes, now_s=clock)
    with seen.syncing("nftables"):
        pass
    assert figures(seen)['kubeproxy_network_programming_duration_seconds_count{ip_family="IPv4"}'] == 0


@pytest.mark.parametrize("trigger", ["", "yesterday", "1970-01-12T13:00:00Z"])
def test_no_latency_comes_of_no_time_or_of_one_before_the_daemon_began(trigger: str) -> None:
    clock = Clock()
    changes = Changes(clock)
    seen = Seen(changes, now_s=clock)
    changes.slice_changed(WEB, None, slice_(trigger))
    changes.slice_changed(WEB, slice_(trigger), None)
    with seen.syncing("nftables"):
        pass
    assert figures(seen)['kubeproxy_network_programming_duration_seconds_count{ip_family="IPv4"}'] == 0


def test_changes_are_pending_until_a_sync_that_began_after_them() -> None:
    changes = Changes()
    seen = Seen(changes)
    changes.service_changed(WEB)
    changes.slice_changed(WEB, None, slice_())
    with seen.syncing("nftables"):
        changes.service_changed(WEB)
    found = figures(seen)
    name = "kubeproxy_sync_proxy_rules_{}_changes_{}"
    assert [found[name.format("service", which)] for which in ("total", "pending")] == [2, 1]
    assert [found[name.format("endpoint", which)] for which in ("total", "pending")] == [1, 0]
    assert found['kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"}'] > BEGAN_S


def test_ports_without_an_endpoint_here_are_counted_by_policy() -> None:
    seen = Seen(Changes())
    with seen.syncing("nftables") as sync:
        elsewhere = virtual_port("10.244.1.2:80", is_internal_local=True, is_external_local=True)
        nowhere = virtual_port(is_internal_local=True)
        here = virtual_port("10.244.1.2:80", local=virtual_port("10.244.0.2:80").cluster, is_external_local=True)
        sync.ports, sync.flows_deleted = {WEB: (elsewhere, nowhere, here)}, 3
    found = figures(seen)
    name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
    assert found[f'{name}{{ip_family="IPv4",traffic_policy="internal"}}'] == 1
    assert found[f'{name}{{ip_family="IPv4",traffic_policy="external"}}'] == 1
    assert found['kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"}'] == 3


def test_a_proxy_is_well_for_a_minute_after_its_last_sync_or_its_start() -> None:
    clock = Clock()
    seen = Seen(Changes(clock), now_s=clock)
    clock.now_s += 59
    assert seen.is_healthy
    clock.now_s += 1
    assert not seen.is_healthy
    with seen.syncing("nftables"):
        pass
    clock.now_s += 59
    assert seen.is_healthy


def test_the_process_is_described() -> None:
    found = figures(Seen(Changes()))
    assert found["process_resident_memory_bytes"] > 1 << 20
    assert found["process_cpu_seconds_total"] > 0
    assert found["process_open_fds"] > 2
