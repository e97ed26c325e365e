"""Events of the controllers: each writes in the name of its component."""

from __future__ import annotations

import itertools
import logging
import time

from testbed.api.events import event
from testbed.api.objects import Object, name
from testbed.client.protocol import Client
from testbed.errors import ApiError

log = logging.getLogger(__name__)


class Recorder:
    """Writes Events in the name of one component."""

    def __init__(self, client: Client, component: str) -> None:
        self._client, self._component = client, component
        self._numbers = itertools.count(time.time_ns())

    async def normal(self, about: Object, reason: str, message: str) -> None:
        """Something happened as it should."""
        await self._record("Normal", about, reason, message)

    async def warning(self, about: Object, reason: str, message: str) -> None:
        """Something is not as it should be."""
        await self._record("Warning", about, reason, message)

    async def _record(self, kind: str, about: Object, reason: str, message: str) -> None:
        try:
            await self._client.create(event(kind, about, reason, message, self._component, next(self._numbers)))
        except ApiError as error:  # an Event is a courtesy: its loss must not repeat the work that it tells of
            log.info("event %s about %s is lost: %s", reason, name(about), error)
