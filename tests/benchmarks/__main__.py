"""`python -m tests.benchmarks [NAME …]`: measure, print a table, write build/bench.json. A name may be a beginning."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tests.benchmarks import api_writes, dns, inside, overlay, proxy, startup, wiring
from tests.benchmarks.figures import HIGHER, LOWER, Bench, Figure, Target, figures
from tests.e2e.clusters import why_not

OUTPUT = Path(__file__).resolve().parents[2] / "build/bench.json"

BENCHES = (
    Bench(
        "up-netns",
        (Target("up-netns", "s", 1.0, LOWER, "up of 2 nodes and 6 pods on namespaces"),),
        startup.small_on_namespaces,
    ),
    Bench(
        "up-netns-20-nodes",
        (
            Target("up-netns-20-nodes", "s", 6.0, LOWER, "up of 20 nodes and 200 pause pods on namespaces"),
            Target("down-netns-20-nodes", "s", 3.0, LOWER, "down of the same"),
        ),
        startup.large_on_namespaces,
    ),
    Bench(
        "up-docker",
        (
            Target("up-docker", "s", 5.0, LOWER, "up of 2 nodes and 6 pods on docker, images built"),
            Target("up-docker-over-bare", "ratio", 1.15, LOWER, "the same over starting its containers bare"),
        ),
        startup.small_on_docker,
        partial(why_not, "docker"),
    ),
    Bench(
        "wiring",
        (Target("wiring", "ms", 3.0, LOWER, "wiring one pod on namespaces"),),
        wiring.per_pod,
        wiring.why_not,
    ),
    *(
        Bench(
            f"node-daemon-memory-{runtime}",
            (
                Target(
                    f"node-daemon-memory-{runtime}",
                    "MB",
                    40.0,
                    LOWER,
                    f"anonymous memory of a node daemon at {inside.SERVICES} Services",
                ),
            ),
            partial(inside.memory_on, runtime),
            partial(why_not, runtime),
        )
        for runtime in ("netns", "docker")
    ),
    Bench(
        "api",
        (
            Target(
                "api-writes", "/s", 2000.0, HIGHER, "durable creates of 1 kB ConfigMaps over 8 kept raw connections"
            ),
            Target("write-to-event", "ms", 5.0, LOWER, f"a write to its watch event at {api_writes.RATE}/s, p99"),
        ),
        api_writes.measured,
    ),
    Bench(
        "endpoint-change",
        (Target("endpoint-change", "ms", 50.0, LOWER, "endpoint changed to a new connection reaching it, p99"),),
        inside.endpoint_change,
    ),
    Bench(
        "dns",
        (
            Target(
                "dns-rate", "/s", dns.COREDNS_RATE, HIGHER, f"uncached answers at {dns.SERVICES} Services; CoreDNS's"
            ),
            Target("dns-latency", "ms", 1.0, LOWER, f"the same at {dns.STEADY_RATE}/s, mean"),
            Target("dns-change", "ms", 100.0, LOWER, "endpoint changed to the name having its address, p99"),
        ),
        dns.measured,
        dns.why_not,
    ),
    Bench(
        "overlay-over-hand",
        (
            Target("overlay-over-hand", "ratio", 1.02, LOWER, "our overlay over the same by hand, latency, two CPUs"),
            Target("overlay-over-hand-one-cpu", "ratio", 1.02, LOWER, "the same with both ends on one CPU"),
            Target(
                "overlay-over-hand-same-rules", "ratio", 1.02, LOWER, "and with our nodes' nft rules in the other's"
            ),
        ),
        overlay.over_hand,
        overlay.why_not,
    ),
    *proxy.benches(),
)


def main(argv: list[str]) -> int:
    """Measure what was named, or everything. Exit code 2 for a name that nothing has; a figure is no failure."""
    wanted = [bench for bench in BENCHES if not argv or any(bench.name.startswith(name) for name in argv)]
    if not wanted:
        say(f"no benchmark begins with {' or '.join(argv)}; there are {', '.join(bench.name for bench in BENCHES)}")
        return 2
    found: list[Figure] = []
    for bench in wanted:
        for figure in figures(bench):
            found.append(figure)
            say(line(figure))
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps([asdict(figure) for figure in found], indent=1) + "\n")
    say(f"{sum(bool(figure.met) for figure in found)} of {len(found)} targets met: {OUTPUT}")
    return 0


def line(figure: Figure) -> str:
    """One figure as a line of the table."""
    bound = f"{'≤' if figure.better == LOWER else '≥'} {figure.target:g}"
    if figure.value is None:
        return f"{figure.name:28} {'-':>10} {figure.unit:6} {bound:9} not measured: {figure.how}"
    value = f"{figure.value:,.3f}".rstrip("0").rstrip(".")
    interval = f" ({figure.interval[0]:.3f}-{figure.interval[1]:.3f})" if figure.interval else ""
    verdict = "met" if figure.met else "NOT met"
    return f"{figure.name:28} {value:>10} {figure.unit:6} {bound:9} {verdict:8}{interval} {figure.how}"


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
