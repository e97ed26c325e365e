"""Doors to a kernel in memory, for what needs some and uses none or only nftables."""

from __future__ import annotations

from pathlib import Path

from testbed.kernel.fake import FakeLinks, FakeNft
from testbed.kernel.fake_ipvs import FakeIpvs
from testbed.kernel.links import Nft
from testbed.proxy.mode import Doors


class NoIptables:
    """Nobody has ever used iptables here, and nobody is to."""

    def restore(self, script: str) -> None:
        raise AssertionError(f"nobody asked for iptables: {script}")

    def save(self, table: str) -> str:
        return ""

    def recent(self, name: str) -> list[str]:
        return []

    def was_edited(self) -> bool:
        return False


def fake_doors(nft: Nft | None = None) -> Doors:
    """A kernel in memory."""
    return Doors(nft=nft or FakeNft(), iptables=NoIptables(), ipvs=FakeIpvs(), links=FakeLinks(Path("node")))
