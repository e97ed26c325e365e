"""The clusters that rows are judged on: one of our own per runtime and mode, or the one in KUBECONFIG."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.bed import Subject
from tests.conformance.rows import DEFAULT_BACKEND, DEFAULT_PROXY, Row
from tests.conformance.runner import Result, run_rows
from tests.e2e.clusters import Cluster, client_from, unique, why_not

IPVS = Path("/proc/net/ip_vs")
TOPOLOGY = Path(__file__).with_name("topology.yaml")


@dataclass(frozen=True)
class Setting:
    """A runtime and a mode: how packets are carried, and who translates service addresses."""

    runtime: str
    backend: str = ""
    proxy: str = ""

    @property
    def mode(self) -> str:
        """`vxlan+nftables`, empty for a cluster that is not ours."""
        return "+".join(filter(None, (self.backend, self.proxy)))

    def __str__(self) -> str:
        return "-".join(filter(None, (self.runtime, self.backend, self.proxy)))

    def why_not(self) -> str:
        """Why it cannot be tried here; empty where it can."""
        if self.proxy == "ipvs" and not IPVS.exists():
            return "this machine's kernel has no IPVS; the virtual machine of tests/vm has"
        return why_not(self.runtime)


FOREIGN = Setting("foreign")
RUNTIMES = "netns", "docker"
MODES = (
    (DEFAULT_BACKEND, DEFAULT_PROXY),
    ("host-gw", DEFAULT_PROXY),
    (DEFAULT_BACKEND, "nftables-kubeproxy"),
    (DEFAULT_BACKEND, "iptables"),
    (DEFAULT_BACKEND, "ipvs"),
)
OWN = tuple(Setting(runtime, *mode) for runtime in RUNTIMES for mode in MODES)


def settings() -> tuple[Setting, ...]:
    """The cluster in KUBECONFIG where that is set, and otherwise all of our own."""
    return (FOREIGN,) if os.environ.get("KUBECONFIG") else OWN


@contextmanager
def cluster(setting: Setting, directory: Path) -> Iterator[Cluster | None]:
    """A cluster of that setting, up inside and gone after; None for the foreign one, which is left as it is."""
    if setting == FOREIGN:
        yield None
        return
    own = Cluster.of(
        TOPOLOGY,
        directory,
        setting.runtime,
        name=unique(f"c-{setting.runtime[0]}-{setting.backend}-{setting.proxy.rpartition('-')[2]}"),
        network__backend=setting.backend,
        services__proxy=setting.proxy,
    )
    try:
        own.up().expect()
        yield own
    finally:
        own.end()


def judge(setting: Setting, own: Cluster | None, rows: Sequence[Row]) -> list[Result]:
    """The rows on a cluster that is up."""
    kubeconfig = own.kubeconfig() if own else Path(os.environ["KUBECONFIG"]).read_text()

    async def with_client() -> list[Result]:
        async with client_from(kubeconfig) as client:
            return await run_rows(Subject(client, setting.runtime, setting.mode, own), rows)

    return asyncio.run(with_client())
