"""`up`, `down` and `kubeconfig`: a cluster comes, goes, and is made known to other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testbed.cli.options import ClusterArgument, Output, OutputOption, RuntimeOption
from testbed.cli.terminal import note, print_json, progress, seconds_since_start

if TYPE_CHECKING:
    from testbed.runtime.choose import Choice, Cluster
    from testbed.runtime.protocol import Progress, Removal
    from testbed.topology.manifests import Manifest
    from testbed.topology.spec import ClusterSpec


def up(
    topology: Annotated[Path, typer.Argument(help="A topology file, such as topologies/two-nodes.yaml.")],
    runtime: RuntimeOption = None,
    name: Annotated[str, typer.Option(help="Another name for the cluster than the file's.")] = "",
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a value of spec: network.backend=host-gw. Repeatable.", metavar="PATH=VALUE"
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until everything works.", min=1)] = 180.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Bring a topology up, or make a running cluster follow its changed file.

    Returns when every pod is Ready, every node has reached every other with full-size packets, and the service rules
    are in every node's kernel.
    """
    choice, spec, manifests = _planned(topology, runtime or "", name, change or [])
    note(f"{spec.name}: {len(spec.nodes)} nodes on {choice.runtime.name} ({choice.why})")
    try:
        with progress() as show:
            choice.runtime.create(spec, show)
            url = _settled(choice, spec, manifests, timeout, show)
    except KeyboardInterrupt:
        note(
            f"\nInterrupted. `testbed up {topology}` goes on from here, `testbed down {spec.name}` removes everything."
        )
        raise
    seconds = round(seconds_since_start(), 2)
    if output is Output.JSON:
        said = {"runtime": choice.runtime.name, "why": choice.why, "url": url, "nodes": len(spec.nodes)}
        print_json({"cluster": spec.name, **said, "seconds": seconds})
        return
    print(f"{spec.name} is up after {seconds:.1f} s: see `testbed status`, end it with `testbed down`.")


def _planned(topology: Path, runtime: str, name: str, change: list[str]) -> tuple[Choice, ClusterSpec, list[Manifest]]:
    from concurrent.futures import ThreadPoolExecutor

    from testbed.runtime import capabilities
    from testbed.runtime.choose import choose
    from testbed.runtime.dns import decided
    from testbed.topology.load import load_topology
    from testbed.topology.manifests import load_manifests
    from testbed.topology.plan import plan

    loaded = load_topology(topology, _settings(change), name)
    with loaded.source.blamed():
        nodes = plan(loaded.model, runtime="netns").nodes  # its mistakes first, before any engine is asked
    with ThreadPoolExecutor(1) as beside:  # a process of its own asks the kernel
        reasons = beside.submit(capabilities.known, capabilities.needs(nodes))
        manifests = load_manifests([topology.parent / file for file in loaded.model.spec.manifests])
        cluster = loaded.model.metadata.name
        choice = choose(runtime or loaded.model.spec.runtime, cluster)
        with loaded.source.blamed():
            spec = plan(loaded.model, runtime=choice.runtime.name, running=choice.runtime.spec(cluster))
        spec, about_dns = decided(spec)
        capabilities.require_proxies(spec, reasons.result())
    if about_dns:
        note(about_dns)
    return choice, spec, manifests


def _settings(change: list[str]) -> dict[str, Any]:
    """`network.backend=host-gw` as settings; the value is read as YAML, so that 1400 is a number."""
    from testbed.errors import BadInput
    from testbed.topology.load import scalar

    settings = {}
    for text in change:
        path, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"--set {text}: write it as PATH=VALUE, such as network.backend=host-gw")
        settings[path] = scalar(value)
    return settings


def _settled(choice: Choice, spec: ClusterSpec, manifests: list[Manifest], timeout_s: float, show: Progress) -> str:
    """The second half of `up`, imported only now: the runtime's processes start while this one still loads."""
    import asyncio

    from testbed.runtime.lifecycle import settle

    return asyncio.run(settle(spec, manifests, choice.runtime, show, timeout_s=timeout_s)).url


def down(
    cluster: ClusterArgument = "",
    every: Annotated[bool, typer.Option("--all", help="Every cluster on this machine.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Remove a cluster whatever state it is in, and prove that nothing of it is left. Removing nothing is no error."""
    removals = {}
    for target in _targets(cluster, every=every):
        with progress() as show:
            removals[target.name] = target.runtime.delete(target.name, show)
    if output is Output.JSON:
        print_json({name: vars(removal) for name, removal in removals.items()})
    elif not removals:
        print(f"There is no cluster {cluster}." if cluster else "No cluster is up.")
    else:
        _print_removals(removals)
    leftovers = [f"{name}: {line}" for name, removal in removals.items() for line in removal.leftovers]
    if leftovers:
        from testbed.errors import CheckFailed, joined

        raise CheckFailed(joined(["something is left behind:", *leftovers]))


def _targets(cluster: str, *, every: bool) -> list[Cluster]:
    """What `down` removes; a name that nobody has is nothing to remove, several clusters and no name are a mistake."""
    from testbed.runtime.choose import existing, find

    found = list(existing())
    if every or not found:
        return found
    if cluster:
        return [one for one in found if one.name == cluster]
    return [find()]


def _print_removals(removals: Mapping[str, Removal]) -> None:
    for name, removal in removals.items():
        print(f"{name} is gone: {counted(removal.removed)} removed.")
        for line in removal.checked:
            print(f"  checked: {line}")


def counted(things: tuple[str, ...]) -> str:
    """`9 processes, 1 directory`: how many of each sort, the first word of each line."""
    from collections import Counter

    counts = Counter(thing.partition(" ")[0] for thing in things)
    return ", ".join(f"{count} {_plural(word, count)}" for word, count in counts.items()) or "nothing"


def _plural(word: str, count: int) -> str:
    if count == 1:
        return word
    if word.endswith("y"):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "ch")) else f"{word}s"


def kubeconfig(
    cluster: ClusterArgument = "",
    file: Annotated[
        Path | None, typer.Option("--file", help="Write it there (mode 0600) instead of printing it.", dir_okay=False)
    ] = None,
) -> None:
    """Print a kubeconfig, made from the running cluster, for kubectl and every client library."""
    from testbed.runtime.choose import find
    from testbed.runtime.kubeconfig import kubeconfig_of

    found = find(cluster)
    text = kubeconfig_of(found.name, found.runtime.endpoint(found.name))
    if file is None:
        print(text, end="")
        return
    file.touch(mode=0o600)
    file.write_text(text)
    note(f"written to {file}: export KUBECONFIG={file}")
