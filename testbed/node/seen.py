"""What the proxy of one node shows of itself: kube-proxy's own figures, under its names and in its buckets.

Names, help texts and buckets are those of kube-proxy 1.36 (pkg/proxy/metrics); what it has no name for begins with
`testbed_`. The figures of the process are those of all nodes that it serves.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed.errors import TestbedError
from testbed.node.changes import Changes
from testbed.node.exposition import NO_LABELS, Family, Histogram, Labels, Sample
from testbed.proxy.virtualport import Ports

HEALTH_TIMEOUT_S = 60.0
"""Of kube-proxy: two of its sync periods. Ours looks at its rules every few seconds: so long a silence is illness."""

IPV4 = {"ip_family": "IPv4"}
SYNC_BUCKETS = tuple(0.001 * 2**power for power in range(15))
PROGRAMMING_BUCKETS = (0, 0.25, 0.5, *range(1, 60), *range(60, 120, 5), *range(120, 301, 30))
_NFTABLES_FAILURES = ("kubeproxy_sync_proxy_rules_nftables_sync_failures_total", "nftables sync failures")
_IPTABLES_FAILURES = ("kubeproxy_sync_proxy_rules_iptables_restore_failures_total", "iptables restore failures")
FAILURES = {"iptables": _IPTABLES_FAILURES, "ipvs": _IPTABLES_FAILURES}
"""Name and help of the failures of a mode; of all others those of nftables."""
_PAGE = resource.getpagesize()
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Sync:
    """One round of making the rules true, told by whoever makes it."""

    is_full: bool | None = None
    """Whether everything was loaded, or the difference alone; None: nothing had to be."""
    ports: Ports = field(default_factory=dict)
    """What is served from now on."""
    flows_deleted: int = 0
    was_edited: bool = False
    """Whether somebody else had been at the rules."""


class Seen:
    """The proxy of one node, as its loop tells it."""

    def __init__(self, changes: Changes, mode: str = "", now_s: Callable[[], float] = time.time) -> None:
        self.mode = mode
        """The mode that serves now; empty: none yet."""
        self.ports: Ports = {}
        self.healthz: Counter[int] = Counter()
        """Answers at /healthz, by HTTP status."""
        self.livez: Counter[int] = Counter()
        self._changes, self._now_s = changes, now_s
        self._began_s = now_s()
        self._synced_s = 0.0
        self._done = changes.mark
        self._all, self._full, self._partial = (Histogram(SYNC_BUCKETS) for _ in range(3))
        self._programming = Histogram(PROGRAMMING_BUCKETS)
        self._failures: Counter[tuple[str, str]] = Counter()
        self._flows_deleted = self._edits = 0

    @contextmanager
    def syncing(self, mode: str) -> Iterator[Sync]:
        """Around one round in that mode. What leaves it by an error counts as a failure; changes that have come by
        its beginning count as programmed at its end."""
        mark, began = self._changes.mark, time.perf_counter()
        sync = Sync()
        try:
            yield sync
        except TestbedError:
            self._failures[FAILURES.get(mode, _NFTABLES_FAILURES)] += 1
            raise
        self.mode, self.ports = mode, sync.ports
        self._synced_s = self._now_s()
        if sync.is_full is not None:
            for histogram in (self._all, self._full if sync.is_full else self._partial):
                histogram.observe(time.perf_counter() - began)
        for at_s in self._changes.triggers(self._done, mark):
            self._programming.observe(max(0.0, self._synced_s - at_s))
        self._done = mark
        self._flows_deleted += sync.flows_deleted
        self._edits += sync.was_edited

    @property
    def last_synced_s(self) -> float:
        """When the rules were last known to be right, in seconds since the epoch; 0: never."""
        return self._synced_s

    @property
    def is_healthy(self) -> bool:
        """Whether the rules were known to be right within the last minute, the first of its life included."""
        return self._now_s() - max(self._synced_s, self._began_s) < HEALTH_TIMEOUT_S

    def families(self) -> Iterator[Family]:
        """Everything, for `exposition.render`."""
        yield from self._syncs()
        yield from self._changes_seen()
        yield from self._served()
        yield from process()

    def _syncs(self) -> Iterator[Family]:
        name = "proxy_rules_duration_seconds"
        yield _histogram(f"kubeproxy_sync_{name}", "SyncProxyRules latency in seconds", self._all)
        help_ = "SyncProxyRules latency in seconds for full resyncs"
        yield _histogram(f"kubeproxy_sync_full_{name}", help_, self._full)
        help_ = "SyncProxyRules latency in seconds for partial resyncs"
        yield _histogram(f"kubeproxy_sync_partial_{name}", help_, self._partial)
        help_ = "In Cluster Network Programming Latency in seconds"
        yield _histogram("kubeproxy_network_programming_duration_seconds", help_, self._programming)
        help_ = "The last time proxy rules were successfully synced"
        yield _gauge("kubeproxy_sync_proxy_rules_last_timestamp_seconds", help_, self._synced_s, IPV4)
        help_ = "The last time a sync of proxy rules was queued"
        yield _gauge("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", help_, self._changes.last_s, IPV4)
        for name, what in sorted({FAILURES.get(self.mode, _NFTABLES_FAILURES), *self._failures}):
            yield _counter(name, f"Cumulative proxy {what}", self._failures[name, what], IPV4)
        help_ = "Cumulative conntrack flows deleted by conntrack reconciler"
        yield _counter("kubeproxy_conntrack_reconciler_deleted_entries_total", help_, self._flows_deleted, IPV4)
        help_ = "How often somebody else's change of the rules was found, and everything loaded again"
        yield _counter("testbed_proxy_foreign_edits_total", help_, self._edits)

    def _changes_seen(self) -> Iterator[Family]:
        seen, done = self._changes.mark, self._done
        for what, total, left in (
            ("Endpoint", seen.slices, seen.slices - done.slices),
            ("Service", seen.services, seen.services - done.services),
        ):
            name = f"kubeproxy_sync_proxy_rules_{what.lower()}_changes"
            yield _counter(f"{name}_total", f"Cumulative proxy rules {what} changes", total)
            yield _gauge(f"{name}_pending", f"Pending proxy rules {what} changes", left)

    def _served(self) -> Iterator[Family]:
        ports = [port for each in self.ports.values() for port in each]
        lonely = {
            "internal": sum(port.internal_refusal == "drop" for port in ports if port.is_internal_local),
            "external": sum(port.external_refusal == "drop" for port in ports if port.is_external_local),
        }
        help_ = "Number of services with a Local traffic policy and no endpoints"
        samples = [Sample(count, {**IPV4, "traffic_policy": policy}) for policy, count in lonely.items()]
        yield Family("kubeproxy_sync_proxy_rules_no_local_endpoints_total", "gauge", help_, samples)
        yield _by_code("kubeproxy_proxy_healthz_total", "Cumulative proxy healthz HTTP status", self.healthz)
        yield _by_code("kubeproxy_proxy_livez_total", "Cumulative proxy livez HTTP status", self.livez)
        yield _gauge("testbed_proxy_services", "Services that this node serves", len(self.ports))
        yield _gauge("testbed_proxy_service_ports", "Ports of Services that this node serves", len(ports))
        endpoints = sum(len(port.cluster) for port in ports)
        yield _gauge("testbed_proxy_endpoints", "Endpoints of these ports by traffic policy Cluster", endpoints)
        mode = Sample(1, {"mode": self.mode})
        yield Family("testbed_proxy_mode", "gauge", "The proxy's mode on this node, as a label", [mode])


def rules_held(counts: Mapping[str, int]) -> Iterator[Family]:
    """How many rules of the proxy each table of iptables holds; nothing where it holds none."""
    help_ = "Total number of iptables rules owned by kube-proxy"
    samples = [Sample(count, {**IPV4, "table": table}) for table, count in sorted(counts.items())]
    if samples:
        yield Family("kubeproxy_sync_proxy_rules_iptables_total", "gauge", help_, samples)


def process() -> Iterator[Family]:
    """The figures that every Prometheus client gives of its process (proc(5))."""
    own = Path("/proc/self")
    size, resident = (int(pages) * _PAGE for pages in (own / "statm").read_text().split()[:2])
    started_ticks = int((own / "stat").read_text().rpartition(")")[2].split()[19])
    booted_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    yield _counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", time.process_time())
    yield _gauge("process_resident_memory_bytes", "Resident memory size in bytes.", resident)
    yield _gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", size)
    help_ = "Start time of the process since unix epoch in seconds."
    yield _gauge("process_start_time_seconds", help_, round(booted_s + started_ticks / _TICKS, 2))
    yield _gauge("process_open_fds", "Number of open file descriptors.", len(list((own / "fd").iterdir())))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield _gauge("process_max_fds", "Maximum number of open file descriptors.", limit)


def _histogram(name: str, help_: str, histogram: Histogram) -> Family:
    return Family(name, "histogram", help_, histogram.samples(IPV4))


def _gauge(name: str, help_: str, value: float, labels: Labels = NO_LABELS) -> Family:
    return Family(name, "gauge", help_, [Sample(value, labels)])


def _counter(name: str, help_: str, value: float, labels: Labels = NO_LABELS) -> Family:
    return Family(name, "counter", help_, [Sample(value, labels)])


def _by_code(name: str, help_: str, counts: Mapping[int, int]) -> Family:
    samples: Sequence[Sample] = [Sample(count, {"code": str(code)}) for code, count in sorted(counts.items())]
    return Family(name, "counter", help_, samples)
