"""Whether this kernel can run what a topology asks for, seen in a scratch namespace before anything is made."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from testbed import shell
from testbed.errors import CommandFailed, MachineLacks, joined
from testbed.topology.spec import ClusterSpec, NodeSpec

PROXY_NEEDS: Mapping[str, tuple[str, ...]] = {
    "nftables": ("nftables",),
    "nftables-kubeproxy": ("nftables",),
    "iptables": ("iptables", "iptables-restore"),
    "ipvs": ("ipvs", "nftables"),
}
"""Of each proxy mode: the capabilities it rests on, by the names of `kernel.capabilities`."""
IN_THE_IMAGE = frozenset({"iptables-restore"})
"""Programs that the runtime docker brings along."""


def probed(names: Iterable[str] = ()) -> dict[str, str]:
    """Capability → why this machine does not have it, empty where it has: all of them, or those that are named.

    CommandFailed or MachineLacks where no scratch namespace can be made, so that nothing can be known.
    """
    flags = ["--net", "--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net", "--mount"]
    python = [sys.executable, "-m", "testbed.kernel.capabilities", *names]
    package = str(Path(__file__).resolve().parents[2])
    said = shell.run(["unshare", *flags, *python], env={**os.environ, "PYTHONPATH": package})
    reasons: dict[str, str] = json.loads(said)
    return reasons


def known(names: Iterable[str]) -> dict[str, str]:
    """The same, and nothing where nothing can be known: whoever then fails says why in words of its own."""
    try:
        return probed(names)
    except (CommandFailed, MachineLacks):
        return {}


def needs(nodes: Iterable[NodeSpec]) -> list[str]:
    """What the proxies of these nodes rest on."""
    return sorted({name for node in nodes if not node.is_external for name in PROXY_NEEDS[node.proxy]})


def require_proxies(spec: ClusterSpec, reasons: Mapping[str, str]) -> None:
    """MachineLacks where a node's proxy mode cannot be run, a sentence to each mode."""
    mine = {name: why for name, why in reasons.items() if spec.runtime == "netns" or name not in IN_THE_IMAGE}
    modes: dict[str, list[str]] = {}
    for node in spec.nodes:
        if not node.is_external:
            modes.setdefault(node.proxy, []).append(node.name)
    refusals = [
        f"proxy mode {mode} of {_some(nodes)} cannot be run here: {'; '.join(whys)}"
        for mode, nodes in modes.items()
        if (whys := [mine[name] for name in PROXY_NEEDS[mode] if mine.get(name)])
    ]
    if refusals:
        raise MachineLacks(joined([*refusals, "choose another mode; `testbed doctor` shows what this machine can do"]))


def _some(nodes: Collection[str]) -> str:
    shown = ", ".join(list(nodes)[:4])
    return f"{shown} and {len(nodes) - 4} more nodes" if len(nodes) > 4 else shown
