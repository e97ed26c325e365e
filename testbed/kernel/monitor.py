"""Told when somebody takes a device, an address or a route away."""

from __future__ import annotations

from pathlib import Path

from testbed.kernel import rtnl, rtroute
from testbed.kernel.nlmsg import Reply
from testbed.kernel.nlsocket import NETLINK_ROUTE, Subscription

_GROUPS = (rtnl.RTNLGRP_LINK, rtnl.RTNLGRP_IPV4_IFADDR, rtnl.RTNLGRP_IPV4_ROUTE)


class LossMonitor:
    """Watches one namespace for what a network sync would put back.

    Devices whose names begin with `ignored` come and go without being noticed: those of pods.
    """

    def __init__(self, netns: Path | None, *, ignored: str) -> None:
        self._ignored = ignored
        self._subscription = Subscription(NETLINK_ROUTE, _GROUPS, netns)

    def fileno(self) -> int:
        """For an event loop: readable when `lost` may have something to say."""
        return self._subscription.fileno()

    def lost(self) -> bool:
        """Whether a device has gone or is down, or any route or address was deleted, since the last call."""
        return self._subscription.drain(self._is_loss)

    def close(self) -> None:
        """Stop listening."""
        self._subscription.close()

    def _is_loss(self, reply: Reply) -> bool:
        if reply.type in (rtnl.RTM_DELADDR, rtroute.RTM_DELROUTE):
            return True
        if reply.type not in (rtnl.RTM_NEWLINK, rtnl.RTM_DELLINK):
            return False
        state = rtnl.parse_link(reply).state
        return not state.name.startswith(self._ignored) and (reply.type == rtnl.RTM_DELLINK or not state.is_up)
