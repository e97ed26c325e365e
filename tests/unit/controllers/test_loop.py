import asyncio
import itertools
import time
from collections.abc import Callable

import pytest

from testbed.controllers.loop import Loop, together
from testbed.errors import ServiceUnavailable
from testbed.waiting import wait_until_async
from tests.unit.controllers.harness import running


async def until(check: Callable[[], object], what: str) -> None:
    async def answer() -> bool:
        return bool(check())

    await wait_until_async(answer, 5, what, every_s=0.002)


async def test_a_key_asked_for_many_times_is_reconciled_once() -> None:
    done: list[str] = []

    async def reconcile(key: str) -> None:
        done.append(key)

    loop = Loop("test", reconcile)
    for key in ("a", "b", "a", "a"):
        loop.enqueue(key)
    async with running(loop.run()):
        await until(lambda: len(done) >= 2, "both keys are done")
    assert sorted(done) == ["a", "b"]


async def test_a_key_is_not_reconciled_beside_itself_but_once_more_afterwards() -> None:
    active, most, done = 0, 0, 0
    gate = asyncio.Event()

    async def reconcile(_: str) -> None:
        nonlocal active, most, done
        active += 1
        most = max(most, active)
        await gate.wait()
        active -= 1
        done += 1

    loop = Loop("test", reconcile)
    async with running(loop.run()):
        loop.enqueue("a")
        await until(lambda: active, "the first has begun")
        for _ in range(3):
            loop.enqueue("a")
        gate.set()
        await until(lambda: done == 2, "the second is done")
    assert (most, done) == (1, 2)


async def test_different_keys_are_reconciled_side_by_side() -> None:
    active: set[int] = set()
    forever = asyncio.Event()

    async def reconcile(key: int) -> None:
        active.add(key)
        await forever.wait()

    loop = Loop("test", reconcile, workers=4)
    async with running(loop.run()):
        for key in range(4):
            loop.enqueue(key)
        await until(lambda: len(active) == 4, "all four are at work")


@pytest.mark.parametrize("error", [ServiceUnavailable("away"), KeyError("spec")])
async def test_a_reconcile_that_fails_is_tried_again_and_stops_nobody_else(error: Exception) -> None:
    attempts: list[str] = []

    async def reconcile(key: str) -> None:
        attempts.append(key)
        if key == "bad" and attempts.count("bad") < 4:
            raise error

    loop = Loop("test", reconcile, workers=1)
    async with running(loop.run()):
        loop.enqueue("bad")
        loop.enqueue("good")
        await until(lambda: attempts.count("bad") == 4, "the fourth attempt")
    assert attempts.count("good") == 1


async def test_the_pauses_between_attempts_grow() -> None:
    moments: list[float] = []

    async def reconcile(_: str) -> None:
        moments.append(time.monotonic())
        raise ServiceUnavailable("away")

    loop = Loop("test", reconcile)
    async with running(loop.run()):
        loop.enqueue("a")
        await until(lambda: len(moments) == 5, "five attempts")
    pauses = [after - before for before, after in itertools.pairwise(moments)]
    assert all(pause >= 0.009 * 2**number for number, pause in enumerate(pauses))


async def test_the_earliest_of_several_later_times_counts() -> None:
    done: list[str] = []

    async def reconcile(key: str) -> None:
        done.append(key)

    loop = Loop("test", reconcile)
    async with running(loop.run()):
        loop.enqueue_after("a", 60)
        loop.enqueue_after("a", 0.01)
        loop.enqueue_after("a", 60)
        await until(lambda: done == ["a"], "the early one is done")


async def test_a_pace_lets_the_first_through_at_once() -> None:
    done: list[str] = []

    async def reconcile(key: str) -> None:
        done.append(key)

    loop = Loop("test", reconcile, pace_s=60)
    async with running(loop.run()):
        loop.enqueue("a")
        await until(lambda: done, "the first is done, long before the pace is over")


async def test_a_pace_gathers_what_follows() -> None:
    moments: list[float] = []

    async def reconcile(_: str) -> None:
        moments.append(time.monotonic())

    loop = Loop("test", reconcile, pace_s=0.1)
    async with running(loop.run()):
        loop.enqueue("a")
        await until(lambda: moments, "the first is done")
        for _ in range(5):
            loop.enqueue("a")
        await until(lambda: len(moments) == 2, "the second is done")
    assert moments[1] - moments[0] >= 0.09


async def test_writes_made_together_all_finish_before_the_first_error_is_raised() -> None:
    finished: list[int] = []

    async def write(number: int) -> int:
        if number == 0:
            raise ServiceUnavailable("away")
        await asyncio.sleep(0)
        finished.append(number)
        return number

    with pytest.raises(ServiceUnavailable):
        await together(*(write(number) for number in range(4)))
    assert finished == [1, 2, 3]
    assert await together(*(write(number) for number in (7, 8))) == [7, 8]
