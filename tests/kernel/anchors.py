"""An anchor of a test's own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.agent.anchor_client import AnchorClient
from testbed.agent.netns_sandbox import NetnsSandboxes
from testbed.runtime import anchors
from testbed.runtime.anchors import Anchor, Dirs

BEFORE = "what the machine was like"


@dataclass(frozen=True)
class Running:
    """A running anchor, and ways to speak to it."""

    cluster: str
    dirs: Dirs
    client: AnchorClient

    @property
    def found(self) -> Anchor:
        """The anchor as /proc shows it."""
        return next(anchors.find(self.cluster))

    def netns(self, name: str = "a") -> Path:
        """A namespace of that name."""
        full = f"testbed-{self.cluster}-{name}"
        self.client.ensure_netns([full])
        return self.dirs.run / "private/netns" / full

    def sandboxes(self) -> NetnsSandboxes:
        """A sandbox that knows nothing yet, as of an agent that has just started."""
        return NetnsSandboxes(self.cluster, self.client, self.dirs.run, self.dirs.state)


@contextmanager
def running_anchor() -> Iterator[Running]:
    """An anchor, ended afterwards. MachineLacks where this user may not make namespaces.

    Its directory has a short name: a Unix socket's path has 107 bytes at most (unix(7)).
    """
    directory = Path(tempfile.mkdtemp(prefix="tb-d-"))
    cluster = directory.name
    where = Dirs(directory / "run", directory / "state")
    try:
        yield Running(cluster, where, anchors.launch(cluster, where, BEFORE))
    finally:
        for anchor in anchors.find(cluster):
            anchors.end(anchor)
        shutil.rmtree(directory)
