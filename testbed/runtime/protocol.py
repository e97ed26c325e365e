"""What the command line asks of a runtime. A cluster is found by label or name; nothing else keeps its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from testbed.topology.spec import ClusterSpec

Progress = Callable[[str], None]
"""Told, in a few words, which step begins."""


@dataclass(frozen=True)
class Endpoint:
    """Where a cluster's API is reached from this machine, and the credentials of its administrator."""

    url: str
    """`https://127.0.0.1:PORT`"""
    token: str
    ca: bytes
    """PEM"""
    socket: Path | None = None
    """A Unix socket of the same API, where there is one: no TLS, no handshake."""


@dataclass(frozen=True)
class Removal:
    """What `delete` took away and what it then compared with the machine before `up`."""

    removed: tuple[str, ...]
    """One line each: `container testbed-two-nodes-a`."""
    checked: tuple[str, ...]
    """One line each: `12 links, as before`."""
    leftovers: tuple[str, ...]
    """One line each; empty when nothing is left."""


class Runtime(Protocol):
    """Docker or bare namespaces. All methods are synchronous and may be called again after any crash."""

    name: str

    def create(self, spec: ClusterSpec, progress: Progress) -> None:
        """Make holders and daemons so that they match the spec: first start, repair and change are one case.

        A first creation that fails half-way is undone.
        """
        ...

    def clusters(self) -> list[str]:
        """The names of all clusters that have anything left on this machine."""
        ...

    def spec(self, cluster: str) -> ClusterSpec | None:
        """The spec that `create` was last given, where it can still be read."""
        ...

    def endpoint(self, cluster: str) -> Endpoint:
        """NotFound where no such cluster runs."""
        ...

    def delete(self, cluster: str, progress: Progress) -> Removal:
        """Remove everything of the cluster, whatever state it is in, and prove it."""
        ...
