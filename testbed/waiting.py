"""The one shape of waiting: ask a check again until it answers, or say what never came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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


@dataclass
class Backoff:
    """The pauses of a loop that tries again: each twice as long as the last, until `reset` says that it went well."""

    first_s: float = 0.02
    most_s: float = 2.0
    failures: int = 0

    async def wait(self) -> None:
        """Count a failure and pause."""
        pause_s = min(self.first_s * 2 ** min(self.failures, 30), self.most_s)
        self.failures += 1
        await asyncio.sleep(pause_s)

    def reset(self) -> None:
        """The next pause is the first again."""
        self.failures = 0
