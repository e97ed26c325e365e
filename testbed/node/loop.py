"""The shape of every loop of a node: do it all, then wait until something has changed, or until it is time anyway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from testbed.errors import TestbedError
from testbed.waiting import Backoff

log = logging.getLogger(__name__)


async def keep(step: Callable[[], Awaitable[None]], wake: asyncio.Event, *, every_s: float, what: str) -> NoReturn:
    """Run `step` now, whenever `wake` is set, and every `every_s`; one that fails is logged and tried again soon."""
    backoff = Backoff()
    while True:
        wake.clear()
        try:
            await step()
        except TestbedError as error:
            log.warning("%s: %s", what, error)
            await backoff.wait()
        else:
            backoff.reset()
            await woken(wake, every_s)


async def woken(wake: asyncio.Event, timeout_s: float) -> bool:
    """Whether `wake` was set within that time."""
    try:
        async with asyncio.timeout(timeout_s):
            return await wake.wait()
    except TimeoutError:
        return False
