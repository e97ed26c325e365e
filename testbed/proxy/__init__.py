"""Service rules: what to serve (pure), how to say it to the kernel in each mode, and the loop that loads it."""

from collections.abc import Callable, Mapping

from testbed.proxy.mode import Doors, Mode
from testbed.proxy.nftables import NftablesMode

MODES: Mapping[str, Callable[[Doors], Mode]] = {
    "nftables": lambda doors: NftablesMode(doors.nft, doors.links),
}
"""By the name that a topology gives them."""
