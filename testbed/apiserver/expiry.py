"""Events are kept for an hour, as in Kubernetes: what nobody reads any more would grow without end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from testbed.api.kinds import EVENT
from testbed.api.objects import Object, key, parse_time
from testbed.apiserver.resources import Resources

TTL = timedelta(hours=1)
EVERY_S = 60.0
_TIMES = ("lastTimestamp", "eventTime", "firstTimestamp")


class EventExpiry:
    """Deletes old Events, now and then, from `start` until `stop`."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Sweep once, and again every minute."""
        self.sweep(datetime.now(UTC))
        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self.start)

    def stop(self) -> None:
        """No more sweeps."""
        if self._timer is not None:
            self._timer.cancel()

    def sweep(self, now: datetime) -> None:
        """Delete the Events that were last seen longer than an hour before `now`."""
        store = self._resources.store
        for record in store.list(EVENT):
            if now - _last_seen(record.document) > TTL:
                store.delete(EVENT, key(record.document))


def _last_seen(event: Object) -> datetime:
    found = (event.get(field) for field in _TIMES)
    return parse_time(next((time for time in found if time), event["metadata"]["creationTimestamp"]))
