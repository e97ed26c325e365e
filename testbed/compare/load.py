"""A comparison file, resolved: topologies read, every mistake told with file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.compare.schema import ComparisonFile, ComparisonSpec, Variant
from testbed.errors import BadInput, joined
from testbed.topology.load import Loaded, load, load_topology
from testbed.topology.manifests import Manifest, load_manifests
from testbed.topology.schema import Topology
from testbed.topology.source import Mistake

LONGEST_CLUSTER_NAME = 32


@dataclass(frozen=True)
class ClusterPlan:
    """One cluster of a comparison: a topology, changed by the `set` of the variants that run on it."""

    name: str
    topology: Topology
    source: Loaded[Topology]
    manifests: tuple[Manifest, ...]
    settings: Mapping[str, object]
    variants: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Everything that was written, and nothing that still has to be looked up."""

    name: str
    file: Path
    baseline: str
    variants: Mapping[str, Variant]
    primary: tuple[str, str]
    """Variant and metric."""
    locustfile: Path
    users: int
    clusters: tuple[ClusterPlan, ...]

    def cluster_of(self, variant: str) -> ClusterPlan:
        """The cluster on which that variant is measured."""
        return next(cluster for cluster in self.clusters if variant in cluster.variants)


def load_comparison(file: Path) -> Comparison:
    """Read a comparison and all that it names. BadInput lists every mistake, a line each."""
    loaded = load(file, ComparisonFile)
    spec = loaded.model.spec
    clusters, mistakes = _clusters(loaded)
    mistakes = [loaded.source.told(mistake) for mistake in _mistakes(spec, file)] + mistakes
    mistakes += [loaded.source.told(mistake) for mistake in _unknown_nodes(spec, clusters)]
    if mistakes:
        raise BadInput(joined(mistakes))
    first = next(name for name in spec.variants if name != spec.baseline)
    return Comparison(
        name=loaded.model.metadata.name,
        file=file,
        baseline=spec.baseline,
        variants=spec.variants,
        primary=(spec.primary.variant, spec.primary.metric) if spec.primary else (first, "p50"),
        locustfile=file.parent / spec.load.locustfile,
        users=spec.load.users,
        clusters=clusters,
    )


def _clusters(loaded: Loaded[ComparisonFile]) -> tuple[tuple[ClusterPlan, ...], list[str]]:
    """One cluster for each different `set`, and what is wrong with them."""
    spec, name = loaded.model.spec, loaded.model.metadata.name
    groups: dict[str, list[str]] = {}
    for variant, settings in ((variant, spec.variants[variant].settings) for variant in spec.variants):
        groups.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(variant)
    clusters: list[ClusterPlan] = []
    mistakes: list[str] = []
    for number, variants in enumerate(groups.values(), start=1):
        settings = spec.variants[variants[0]].settings
        try:
            topology = load_topology(loaded.file.parent / spec.topology, settings)
            files = [topology.file.parent / path for path in topology.model.spec.manifests]
            manifests = tuple(load_manifests(files))
        except BadInput as error:
            loc = ("spec", "variants", variants[0], "set") if settings else ("spec", "topology")
            mistakes.append(loaded.source.told(Mistake(loc, f"the topology cannot be used:\n{error}")))
            continue
        plan = ClusterPlan(cluster_name(name, number), topology.model, topology, manifests, settings, tuple(variants))
        clusters.append(plan)
    return tuple(clusters), mistakes


def cluster_name(comparison: str, number: int) -> str:
    """The first cluster is called as the comparison, the others carry a number; never more than 32 characters."""
    suffix = "" if number == 1 else f"-{number}"
    return comparison[: LONGEST_CLUSTER_NAME - len(suffix)].rstrip("-") + suffix


def _mistakes(spec: ComparisonSpec, file: Path) -> Iterator[Mistake]:
    names = ", ".join(spec.variants)
    if spec.baseline not in spec.variants:
        yield Mistake(("spec", "baseline"), f"is {spec.baseline!r}, and must be one of the variants: {names}")
    if spec.primary and spec.primary.variant not in spec.variants.keys() - {spec.baseline}:
        loc = ("spec", "primary", "variant")
        yield Mistake(loc, f"is {spec.primary.variant!r}, and must be a variant other than the baseline: {names}")
    locustfile = file.parent / spec.load.locustfile
    if not locustfile.is_file():
        yield Mistake(("spec", "load", "locustfile"), f"is {spec.load.locustfile!r}, and there is no file {locustfile}")
    for name, variant in spec.variants.items():
        if variant.client.node == variant.target.node and variant.client.host_network and variant.target.host_network:
            sentence = "both sides are the same host: this would measure its loopback; take two nodes"
            yield Mistake(("spec", "variants", name), sentence)


def _unknown_nodes(spec: ComparisonSpec, clusters: tuple[ClusterPlan, ...]) -> Iterator[Mistake]:
    for cluster in clusters:
        entries = {entry.name: entry for entry in cluster.topology.spec.expanded()}
        for name in cluster.variants:
            for side, end in (("client", spec.variants[name].client), ("target", spec.variants[name].target)):
                loc = ("spec", "variants", name, side)
                if end.node not in entries:
                    known = ", ".join(entries)
                    yield Mistake((*loc, "node"), f"is {end.node!r}; the topology has the nodes {known}")
                elif not entries[end.node].is_worker and not end.host_network:
                    sentence = f"{end.node} is outside the cluster and has no pod network; say hostNetwork: true"
                    yield Mistake(loc, sentence)
