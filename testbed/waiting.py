"""The one shape of waiting: ask a check again until it answers, or say what never came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from testbed.errors import TimedOut

T = TypeVar("T")


def wait_until(check: Callable[[], T | None], timeout_s: float, what: str, *, every_s: float = 0.02) -> T:
    """Call `check` until it answers something true, and return that; TimedOut names `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        if found := check():
            return found
        if time.monotonic() >= deadline:
            raise TimedOut(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(every_s)


async def wait_until_async(
    check: Callable[[], Awaitable[T | None]], timeout_s: float, what: str, *, every_s: float = 0.02
) -> T:
    """`wait_until` for a check that is awaited."""
    deadline = time.monotonic() + timeout_s
    while True:
        if found := await check():
            return found
        if time.monotonic() >= deadline:
            raise TimedOut(f"{what} did not happen within {timeout_s:g} s")
        await asyncio.sleep(every_s)
