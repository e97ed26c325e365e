"""What the API has told of Services and EndpointSlices, counted once for all the nodes that a process serves."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from testbed.api import objects
from testbed.api.objects import Key, Object
from testbed.api.wellknown import LAST_CHANGE_TRIGGER_TIME
from testbed.client.informer import Informer

_REMEMBERED = 10_000
"""Trigger times; a node that lags behind by more than that loses some for its histogram."""


class Mark(NamedTuple):
    """How many changes there have been up to some moment."""

    services: int = 0
    slices: int = 0


@dataclass(frozen=True)
class _Trigger:
    number: int
    """Of the slice's change among all."""
    at_s: float


class Changes:
    """Counts from the first list on."""

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        self._now_s = now_s
        self._since_s = now_s()
        self._services = self._slices = 0
        self._triggers: deque[_Trigger] = deque(maxlen=_REMEMBERED)
        self.last_s = 0.0
        """When the last one came, in seconds since the epoch; 0: never."""

    def follow(self, services: Informer, slices: Informer) -> None:
        """Count what these tell; to be called before they run."""
        services.on_change(self.service_changed)
        slices.observe(self.slice_changed)

    @property
    def mark(self) -> Mark:
        """Where we are now."""
        return Mark(self._services, self._slices)

    def service_changed(self, _: Key) -> None:
        """A Service came, went or is another now."""
        self._services += 1
        self.last_s = self._now_s()

    def slice_changed(self, _: Key, __: Object | None, slice_: Object | None) -> None:
        """An EndpointSlice did. What changed before this process came was not late on its account."""
        self._slices += 1
        self.last_s = self._now_s()
        at_s = _trigger_time(slice_) if slice_ else 0.0
        if at_s > self._since_s:
            self._triggers.append(_Trigger(self._slices, at_s))

    def triggers(self, before: Mark, upto: Mark) -> list[float]:
        """When what the slices told between two marks had come about, in seconds since the epoch."""
        return [each.at_s for each in self._triggers if before.slices < each.number <= upto.slices]


def _trigger_time(slice_: Object) -> float:
    """What the EndpointSlice controller has noted, the oldest change that made it write; 0: nothing, or no time."""
    try:
        return datetime.fromisoformat(objects.annotations(slice_)[LAST_CHANGE_TRIGGER_TIME]).timestamp()
    except (KeyError, ValueError):
        return 0.0
