"""What the agent tells about pods: Events, written in the background so that no pod waits for them."""

import asyncio
import itertools
import logging
import time

from testbed.api.events import event
from testbed.api.objects import Object, name, namespace
from testbed.client.protocol import Client
from testbed.errors import ApiError

log = logging.getLogger(__name__)

COMPONENT = "testbed-agent"
LEVELS = {"Normal": logging.DEBUG, "Warning": logging.WARNING}
KEPT = 1000
"""Events that wait to be written; beyond that the newest are dropped, as Kubernetes does."""


class Events:
    """A queue of Events and the loop that writes them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: asyncio.Queue[Object] = asyncio.Queue(KEPT)
        self._numbers = itertools.count(time.time_ns())

    def normal(self, pod: Object, reason: str, message: str) -> None:
        """Something happened as it should."""
        self._tell("Normal", pod, reason, message)

    def warning(self, pod: Object, reason: str, message: str) -> None:
        """Something is not as it should be."""
        self._tell("Warning", pod, reason, message)

    async def run(self) -> None:
        """Write them until cancelled. One that cannot be written is lost: it is a courtesy."""
        while True:
            told = await self._waiting.get()
            try:
                await self._client.create(told)
            except ApiError as error:
                log.info("event %s is lost: %s", told["reason"], error)

    def _tell(self, kind: str, pod: Object, reason: str, message: str) -> None:
        log.log(LEVELS[kind], "%s/%s: %s: %s", namespace(pod), name(pod), reason, message)
        try:
            self._waiting.put_nowait(event(kind, pod, reason, message, COMPONENT, next(self._numbers)))
        except asyncio.QueueFull:
            log.warning("too many events at once: %s about %s is lost", reason, name(pod))
