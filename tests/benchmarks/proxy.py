"""Services by the thousand: how long one node takes to load, follow and remove them, and what it costs.

Beside our figures stand those of kube-proxy 1.36.2, measured on a machine like ours: see KUBE_PROXY.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from testbed.kernel import netns
from testbed.kernel.nft import LibNft
from testbed.node.handles import open_handles
from testbed.proxy import MODES
from testbed.waiting import wait_until
from tests.benchmarks.figures import LOWER, Bench, Measured, Target, percentile
from tests.benchmarks.proxy_bed import Bed, proxy_bed
from tests.benchmarks.proxy_changes import CROWD, measured
from tests.benchmarks.proxy_objects import HERE, ports
from tests.benchmarks.wiring import why_not

SIZES = (1, 1000, 10_000, 44_000)
"""Services of two endpoints each."""
DEFAULT = "nftables"
START_S = {1: 1.0, 1000: 1.5, 10_000: 3.0, 44_000: 10.0}
MEMORY_MB = {1: 60.0, 1000: 72.0, 10_000: 150.0, 44_000: 600.0}
DOOR_SIZES = (1000, 5000, 10_000, 44_000)
LOAD_S = {
    "nftables": {1000: 0.189, 5000: 2.679, 10_000: 0.5, 44_000: 2.0},
    "nftables-kubeproxy": {1000: 0.189, 5000: 2.679},
    "iptables": {1000: 0.404, 5000: 8.332},
}
"""Nothing is asked of the other modes but to be no slower than kube-proxy, where its figure is known."""
PATIENCE_S = 40.0
"""How long a mode may take in the kernel alone; what it has not measured by then is said to take longer."""
STALL_MS = 50.0
MANY = 10_000
TOLD = {"change": "change_s", "add": "add_s", "compare": "differences_s", "remove": "teardown_s"}
"""What is said of a mode in the kernel, and how `proxy_door` calls it."""
STEPS = ("load", "list", "compare", "replace", "remove")
"""What is done to 10,000 Services."""
TICKS = Path(__file__).with_name("ticks.py")
ROOT = Path(__file__).resolve().parents[2]

# Issue 3 of this project has them: kube-proxy 1.36.2 at 1,000 and 5,000 Services of two endpoints, on two CPUs.
KUBE_PROXY = {
    ("nftables", 1000): "kube-proxy: load 189 ms, change 132 ms, 72 MiB",
    ("nftables", 5000): "kube-proxy: load 2,679 ms, change 1,133 ms, 122 MiB",
    ("iptables", 1000): "kube-proxy: load 404 ms, change 84 ms",
    ("iptables", 5000): "kube-proxy: load 8,332 ms, change 301 ms",
}


def benches() -> Iterator[Bench]:
    """The default mode from the API to the kernel, every mode in the kernel alone, and how long traffic stands."""
    for size in SIZES:
        yield Bench(f"proxy-{size}", tuple(_targets(size)), partial(from_the_api, size), why_not)
    for mode in MODES:
        for size in DOOR_SIZES:
            name = f"proxy-{mode}-{size}"
            target = Target(
                name,
                "s",
                LOAD_S.get(mode, {}).get(size, PATIENCE_S),
                LOWER,
                f"mode {mode}: load of {size:,} Services, kernel alone",
            )
            yield Bench(name, (target,), partial(in_the_kernel, mode, size), partial(_why_no_mode, mode))
    stalls = (
        Target(f"proxy-stall-{step}", "ms", STALL_MS, LOWER, f"longest delay of a packet: {step}") for step in STEPS
    )
    yield Bench("proxy-stall", tuple(stalls), stall, why_not)


def from_the_api(size: int) -> Mapping[str, Measured]:
    """By the processes that are there in a cluster: control plane and node daemon."""
    found = asyncio.run(measured(size, DEFAULT))
    by_service_us, by_pod_us = found.connect_us
    daemon = f"the daemon: {found.at_start.cpu_s:.2f} s of CPU, {found.at_start.rss_mb:.0f} MB"
    name = f"proxy-{size}"
    return {
        f"{name}-start": Measured(found.start_s, daemon),
        **_spread(f"{name}-change", found.changes_s),
        **_spread(f"{name}-add", found.additions_s),
        **_spread(f"{name}-crowd", found.crowd_s),
        f"{name}-memory": Measured(found.at_end.rss_mb, f"{found.at_end.cpu_s:.2f} s of CPU by then"),
        f"{name}-connect": Measured(by_service_us - by_pod_us, f"{by_service_us:.1f} over {by_pod_us:.1f} µs"),
    }


def in_the_kernel(mode: str, size: int) -> Mapping[str, Measured]:
    """One mode alone, in a process and a namespace of its own, which end when they have had their time."""
    said = _door(mode, size)
    beside = KUBE_PROXY.get((mode.removesuffix("-kubeproxy"), size), "")
    if "load_s" not in said:
        return {f"proxy-{mode}-{size}": Measured(PATIENCE_S, f"stopped, and not loaded by then; {beside}")}
    told = [f"{what} {said[key] * 1000:.1f} ms" for what, key in TOLD.items() if key in said]
    missing = [f"{what} was not waited for" for what, key in TOLD.items() if key not in said]
    return {f"proxy-{mode}-{size}": Measured(said["load_s"], "; ".join([*told, *missing, beside]).rstrip("; "))}


def stall() -> Mapping[str, Measured]:
    """A new connection every millisecond, from pod to pod, while the node's rules are worked at."""
    with proxy_bed(DEFAULT) as bed, _ticking(bed) as longest_ms, ExitStack() as undo:
        nft = undo.enter_context(closing(LibNft(bed.node_place)))
        handles = undo.enter_context(closing(open_handles(bed.node_place)))
        mode, served = MODES[DEFAULT](handles.doors), ports(MANY)
        work: dict[str, Callable[[], object]] = {
            "load": partial(mode.load, served, HERE),
            "list": partial(nft.list, "ruleset"),
            "compare": partial(mode.differences, served),
            "replace": partial(mode.load, served, HERE),
            "remove": mode.teardown,
        }
        return {f"proxy-stall-{step}": _stalled(work[step], longest_ms) for step in STEPS}


def _stalled(work: Callable[[], object], longest_ms: Callable[[], float]) -> Measured:
    longest_ms()
    began = time.perf_counter()
    work()
    took_s = time.perf_counter() - began
    return Measured(longest_ms(), f"while {MANY:,} Services took {took_s * 1000:.0f} ms")


def _targets(size: int) -> Iterator[Target]:
    name, many = f"proxy-{size}", f"{size:,} Services" if size > 1 else "one Service"
    yield Target(f"{name}-start", "s", START_S[size], LOWER, f"start of the node daemon to the last of {many}")
    for what, text in (("change", "one endpoint"), ("add", "one more Service"), ("crowd", f"one of {CROWD} endpoints")):
        yield Target(f"{name}-{what}-p50", "ms", 5.0, LOWER, f"API write to first good connection: {text}, {many}")
        yield Target(f"{name}-{what}-p99", "ms", 20.0, LOWER, f"the same, 99th percentile: {text}, {many}")
    yield Target(f"{name}-memory", "MB", MEMORY_MB[size], LOWER, f"the node daemon's memory with {many}")
    yield Target(f"{name}-connect", "µs", 15.0, LOWER, f"a connection through the last of {many}, over the pod's own")


def _spread(name: str, seconds: Sequence[float]) -> dict[str, Measured]:
    how = f"of {len(seconds)}, most {max(seconds) * 1000:.1f} ms"
    return {
        f"{name}-p50": Measured(statistics.median(seconds) * 1000, how),
        f"{name}-p99": Measured(percentile(seconds, 99) * 1000, how),
    }


def _door(mode: str, size: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "node"
        netns.create(place)
        argv = ["nsenter", f"--net={place}", sys.executable, "-m", "tests.benchmarks.proxy_door", mode, str(size)]
        try:
            done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, timeout=PATIENCE_S, check=True)
            printed = done.stdout
        except subprocess.TimeoutExpired as late:
            printed = late.stdout or b""
        finally:
            netns.delete(place)
    return {key: value for line in printed.splitlines() for key, value in json.loads(line).items()}


def _why_no_mode(mode: str) -> str:
    if mode == "ipvs" and not Path("/proc/net/ip_vs").exists():
        return "this kernel has no IPVS"
    return why_not()


@contextmanager
def _ticking(bed: Bed) -> Iterator[Callable[[], float]]:
    """A probe from pod two to pod one; the call answers the longest delay since the call before, in milliseconds."""
    to = (str(bed.server("one")), "7009")
    with bed.running(TICKS, "one", "receive", *to) as receiver:
        _first_line(receiver)
        with bed.running(TICKS, "two", "send", *to) as sender:
            _first_line(sender)
            wait_until(lambda: _delays(receiver)[1], 5.0, "the probe's packets")
            yield lambda: _delays(receiver)[0]


def _delays(receiver: subprocess.Popen[str]) -> tuple[float, int]:
    """The longest, in milliseconds, and the number of packets, since the last call."""
    assert receiver.stdin
    receiver.stdin.write("\n")
    receiver.stdin.flush()
    longest, count = _first_line(receiver).split()
    return float(longest), int(count)


def _first_line(program: subprocess.Popen[str]) -> str:
    assert program.stdout
    return program.stdout.readline()
