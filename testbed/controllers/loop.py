"""The loop under every controller: a queue of keys, and one reconcile that is told which, never what happened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from testbed.errors import ApiError, Conflict, NotFound

log = logging.getLogger(__name__)

H = TypeVar("H", bound=Hashable)
T = TypeVar("T")

FIRST_RETRY_S = 0.01
LAST_RETRY_S = 10.0
MOST_REST_S = 0.1
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)
"""What reading a malformed object raises. One such object must not stop the loop for all the others."""


class Loop(Generic[H]):
    """Keys go in, in any number and order; each is reconciled soon after it was last asked for.

    A key is never reconciled twice at the same time; however often it is asked for meanwhile, it is done once more
    afterwards. A reconcile that fails is tried again, later each time. `pace_s` is the least pause between two
    reconciles of one key, or, where one takes long, that long again (at most 0.1 s): the first comes at once, and what
    follows within the pause is done in one.
    """

    def __init__(
        self, name: str, reconcile: Callable[[H], Awaitable[None]], *, workers: int = 8, pace_s: float = 0.0
    ) -> None:
        self._name, self._reconcile = name, reconcile
        self._workers, self._pace_s = workers, pace_s
        self._queue: asyncio.Queue[H] = asyncio.Queue()
        self._due: set[H] = set()
        self._busy: set[H] = set()
        self._failures: dict[H, int] = {}
        self._timers: dict[H, asyncio.TimerHandle] = {}

    def enqueue(self, key: H) -> None:
        """Reconcile `key` soon."""
        if key not in self._due:
            self._due.add(key)
            if key not in self._busy:
                self._queue.put_nowait(key)

    def enqueue_after(self, key: H, delay_s: float) -> None:
        """Reconcile `key` in `delay_s` at the latest; of several such wishes the earliest counts."""
        clock = asyncio.get_running_loop()
        waiting = self._timers.get(key)
        if waiting is not None:
            if waiting.when() <= clock.time() + delay_s:
                return
            waiting.cancel()
        self._timers[key] = clock.call_later(delay_s, self._ring, key)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    def _ring(self, key: H) -> None:
        del self._timers[key]
        self.enqueue(key)

    async def _work(self) -> None:
        clock = asyncio.get_running_loop()
        while True:
            key = await self._queue.get()
            self._due.discard(key)
            self._busy.add(key)
            begun = clock.time()
            await self._attempt(key)
            if self._pace_s:
                took_s = min(clock.time() - begun, MOST_REST_S)
                clock.call_later(max(self._pace_s, took_s), self._release, key)
            else:
                self._release(key)

    async def _attempt(self, key: H) -> None:
        try:
            await self._reconcile(key)
        except (Conflict, NotFound) as error:  # somebody wrote in between: look again, nothing is wrong
            log.debug("%s %s: %s", self._name, key, error)
            self._retry(key)
        except ApiError as error:
            log.warning("%s %s: %s", self._name, key, error)
            self._retry(key)
        except UNREADABLE:
            log.exception("%s %s: the object cannot be read", self._name, key)
            self._retry(key)
        else:
            self._failures.pop(key, None)

    def _retry(self, key: H) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.enqueue_after(key, min(FIRST_RETRY_S * 2 ** min(failures, 20), LAST_RETRY_S))

    def _release(self, key: H) -> None:
        self._busy.discard(key)
        if key in self._due:
            self._queue.put_nowait(key)


async def together(*writes: Awaitable[T]) -> list[T]:
    """Await all writes side by side; when every one has been answered, raise the first error there was."""
    answers = await asyncio.gather(*writes, return_exceptions=True)
    done: list[T] = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        done.append(answer)
    return done
