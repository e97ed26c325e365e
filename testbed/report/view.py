"""The page of a comparison, as data: every text, table and chart, chosen here and laid out elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from testbed.compare.analysis import METRICS, Cell
from testbed.compare.environment import Environment, VariantInfo
from testbed.compare.results import Results
from testbed.compare.schedule import CONTROL
from testbed.compare.verdict import VALID, baseline_name
from testbed.report import charts, drawing, numbers

SHOWN = ("p50", "requests", "cpu", "loaded_p50")
"""The metrics of the main table."""
NOISE = "~"


@dataclass(frozen=True)
class CellView:
    """One metric of one variant in words; all but `value` are empty for the baseline."""

    value: str
    difference: str = ""
    difference_interval: str = ""
    ratio: str = ""
    ratio_interval: str = ""
    noise: str = ""
    """`~` where it does not stand out from the A/A control."""


@dataclass(frozen=True)
class Row:
    """One variant."""

    name: str
    what: str
    """Its path in words."""
    path: str
    path_detail: str
    colour: str
    """A CSS variable's name."""
    cells: Mapping[str, CellView]
    sentence: str = ""
    is_baseline: bool = False
    is_control: bool = False


@dataclass(frozen=True)
class Chart:
    """A picture, the sentence under it, and what somebody reads who cannot see it."""

    key: str
    title: str
    caption: str
    figure: Mapping[str, Any]
    """Plotly's JSON: data and layout."""
    alt: str


@dataclass(frozen=True)
class Page:
    """Everything on the page."""

    title: str
    status: str
    doubts: tuple[str, ...]
    headline: str
    lede: str
    rows: tuple[Row, ...]
    answer: Chart
    charts: tuple[Chart, ...]
    drawings: tuple[tuple[str, str], ...]
    """Title and SVG, one for each cluster."""
    facts: tuple[tuple[str, str], ...]
    """How it was measured."""
    machine: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...]
    command: str


def view(results: Results) -> Page:
    """The page of a comparison."""
    environment, analysis = results.environment, results.analysis
    return Page(
        title=environment.name,
        status=results.verdict.status,
        doubts=results.verdict.doubts,
        headline=results.verdict.headline,
        lede=_lede(results),
        rows=tuple(_rows(results)),
        answer=_answer(results),
        charts=tuple(_charts(results)) if analysis.rounds else (),
        drawings=tuple(drawing.draw_clusters(environment)),
        facts=tuple(_facts(results)),
        machine=tuple(_machine(environment)),
        dropped=tuple(f"round {one.round}: {'; '.join(one.reasons)}" for one in analysis.dropped),
        command=environment.command,
    )


def what(info: VariantInfo, backend: str) -> str:
    """A variant's path in a few words."""
    ends = ["host" if host else "pod" for host in (info.client_host_network, info.target_host_network)]
    if info.client_node == info.target_node:
        path = f"{ends[0]} to {ends[1]} within {info.client_node}"
    elif info.client_host_network and info.target_host_network:
        path = f"host {info.client_node} to host {info.target_node}, no pod network"
    elif info.target_host_network:
        path = f"pod on {info.client_node} to host {info.target_node}, masqueraded"
    else:
        path = f"{ends[0]} on {info.client_node} to pod on {info.target_node} over {backend}"
    return f"{path}, through a ClusterIP" if info.via == "service" else path


def _lede(results: Results) -> str:
    environment, analysis = results.environment, results.analysis
    counted = len(analysis.rounds)
    reach = "" if results.verdict.status == VALID else f" The verdict is {results.verdict.status}."
    return (
        f"{len(environment.variants)} variants and an A/A control; rounds that count: {counted}. Latency is that of "
        f"one user alone; requests per second and CPU are those of {environment.users} users at once, each waiting "
        f"for its answer. Every figure is the variant against {baseline_name(environment)} in the same round, with "
        f"its 95 % interval.{reach}"
    )


def _rows(results: Results) -> Iterator[Row]:
    environment, analysis = results.environment, results.analysis
    for name, info in environment.variants.items():
        is_baseline = name == environment.baseline
        backend = environment.clusters[info.cluster]["network"]["backend"]
        yield Row(
            name=name,
            what=what(info, backend),
            path=info.path,
            path_detail=info.path_detail,
            colour=charts.shade(environment, name),
            cells=_baseline_cells(results) if is_baseline else _cells(analysis.cells.get(name, {})),
            sentence=results.verdict.sentences.get(name, ""),
            is_baseline=is_baseline,
        )
    words = "the baseline once more in every round: what no difference looks like here"
    path = environment.variants[environment.baseline].path
    yield Row(CONTROL, words, path, "", "muted", _cells(analysis.cells.get(CONTROL, {})), is_control=True)


def _baseline_cells(results: Results) -> dict[str, CellView]:
    values = results.analysis.values[results.environment.baseline]
    return {key: CellView(numbers.figure(charts.middle(series))) for key, series in values.items() if series}


def _cells(cells: Mapping[str, Cell]) -> dict[str, CellView]:
    return {key: _cell(cell) for key, cell in cells.items()}


def _cell(cell: Cell) -> CellView:
    return CellView(
        value=numbers.figure(cell.value),
        difference=numbers.centre(cell.difference),
        difference_interval=numbers.interval(cell.difference),
        ratio=numbers.ratio(cell.ratio.centre),
        ratio_interval=numbers.ratio_interval(cell.ratio),
        noise=NOISE if cell.within_noise else "",
    )


def _answer(results: Results) -> Chart:
    base = baseline_name(results.environment)
    shown = [row for row in _rows(results) if not row.is_baseline and "p50" in row.cells]
    told = (f"{row.name} {row.cells['p50'].difference} ({row.cells['p50'].difference_interval})" for row in shown)
    return Chart(
        "answer",
        f"Median latency of one user against {base}, in µs",
        f"Dot: the difference to {base} in the same round (Hodges-Lehmann). Line: its 95 % interval. "
        "Grey band: the A/A control, two measurements of the same thing; what touches it is not told apart from noise.",
        charts.differences(results, "p50"),
        f"Paired differences of the median latency in microseconds: {'; '.join(told)}.",
    )


def _charts(results: Results) -> Iterator[Chart]:
    users = results.environment.users
    yield _percentiles(results, "lone", "Latency by percentile, one user")
    yield Chart(
        "cpu",
        "CPU per request, in µs",
        "CPU time of the generator's and the server's processes under load. It includes the kernel's work on their "
        "behalf: with virtual devices the sender's process carries a packet all the way to the receiver's socket.",
        charts.cpu(results),
        "CPU time per request of every variant, split into generator and server.",
    )
    yield _percentiles(results, "loaded", f"Latency by percentile, {users} users")
    yield Chart(
        "rounds",
        "Round by round",
        "The median latency of one user in each trial. What moves all variants together is the machine, and cancels in "
        "the pairs.",
        charts.rounds(results),
        "Median latency of every variant in every round.",
    )
    yield Chart(
        "series",
        "Within a trial",
        f"Requests per second of {users} users in each tenth of a second, the median over all rounds. Before 0: "
        "warm-up, not measured.",
        charts.series(results),
        "Request rate over the course of a trial.",
    )


def _percentiles(results: Results, phase: str, title: str) -> Chart:
    told = ", ".join(f"{name} {count:,}" for name, count in charts.samples(results, phase).items())
    return Chart(
        f"percentiles-{phase}",
        title,
        f"All rounds that count, merged without loss. Requests: {told}. The axis stretches towards the slowest.",
        charts.percentiles(results, phase),
        f"{title}, of every variant, up to 99.9 %.",
    )


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    environment, analysis = results.environment, results.analysis
    yield "Measured", f"{environment.started} to {environment.ended or 'an interruption'}"
    yield "Rounds", f"{len(analysis.rounds)} count, {len(analysis.dropped)} dropped; {environment.stopped or 'unknown'}"
    variant, metric = environment.primary
    yield "Primary cell", f"{variant}, {METRICS[metric].title}: tested at 5 %, over all looks; the rest is exploratory"
    yield "Order", f"rows of a balanced Latin square, shuffled with seed {environment.seed}"
    yield "Placement", _placement(environment)
    yield "Trial", _trial(environment)
    busy = charts.middle([one.loaded.generator_busy for one in results.measurements]) if results.measurements else 0.0
    yield (
        "Load",
        f"{environment.locustfile}; under load the generator's core was {busy:.0%} busy. Where that is close to 100 %, "
        "latency under load is mostly the queue in front of it: requests per second and CPU say more",
    )
    elsewhere = charts.middle([one.loaded.elsewhere for one in results.measurements]) if results.measurements else 0.0
    yield "Neighbours", f"{elsewhere:.0%} of the pinned CPUs' time went to neither generator nor server"
    unsteady = sum(not one.loaded.steady for one in results.measurements)
    yield "Unsettled", f"{unsteady} of {len(results.measurements)} trials began before the rate had settled"
    first = environment.clusters[environment.variants[environment.baseline].cluster]
    yield (
        "Segmentation",
        f"{first['underlay']['segmentation']}: between namespaces of one kernel, large packets cross veth and VXLAN "
        "uncut, so figures per byte do not carry over to real network cards",
    )


def _placement(environment: Environment) -> str:
    place = environment.placement
    nice = place["nice"]
    raised = ", both with priority over other programs" if max(map(max, nice.values())) < 0 else ""
    return f"{place['name']}: generator on CPU {place['client']}, server on CPU {place['server']}{raised}"


def _trial(environment: Environment) -> str:
    pace = environment.pace
    lone = f"one user: warm up {pace['lone_warmup_s']:g} s, measure {pace['lone_window_s']:g} s"
    warmup = f"warm up {pace['warmup_s']:g} to {pace['warmup_limit_s']:g} s until the rate is steady"
    loaded = f"{environment.users} users: {warmup}, measure {pace['window_s']:g} s"
    return f"settle {pace['settle_s']:g} s; {lone}; {loaded}"


def _machine(environment: Environment) -> Iterator[tuple[str, str]]:
    machine = environment.machine
    yield "Kernel", str(machine.get("kernel", "unknown"))
    hypervisor = ", under a hypervisor" if machine.get("hypervisor") else ""
    yield "CPU", f"{machine.get('cpus', '?')} {numbers.TIMES} {machine.get('cpu', 'unknown')}{hypervisor}"
    for key, title in _MACHINE.items():
        if value := machine.get(key):
            yield title, str(value).partition("\n")[0]
    yield "Stolen since boot", f"{float(machine.get('steal_since_boot', 0)):.2%}"
    yield "Versions", ", ".join(f"{name} {version}" for name, version in dict(machine.get("versions", {})).items())
    for cluster, nodes in environment.devices.items():
        for node, seen in nodes.items():
            for device, counted in seen.get("devices", {}).items():
                if device != "lo" and not device.startswith("veth"):
                    offloads = ", ".join(counted["offloads"]) or "none"
                    yield f"{cluster} / {node} / {device}", f"MTU {counted['mtu']}, offloads: {offloads}"


_MACHINE = {
    "governor": "Governor",
    "smt": "SMT",
    "clock_source": "Clock source",
    "load": "Load at the start",
    "pressure_cpu": "CPU pressure",
    "memory_mib": "Memory (MiB)",
}
