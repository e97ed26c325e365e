"""Who answers at an address and port: what rows about Services ask over and over again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from testbed.errors import TimedOut
from testbed.waiting import wait_until_async
from tests.conformance.bed import PROGRAMMED_S, Bed, Running
from tests.e2e.asking import Answer
from tests.tiers import SLOWNESS

Wanted = Callable[[Answer], bool]
REQUESTS = 60
"""With three backends, missing one in 60 draws happens once in 10^10 runs."""
SILENCE_S = 0.5 * SLOWNESS
"""Who has not answered by then says nothing: everything is on one machine."""
BY_THE_ROUTES = frozenset(["TIMEOUT", "OTHER"])
"""Silence, or an ICMP error of some router, which limits how many of these it sends."""


@dataclass(frozen=True)
class Door:
    """Where a client knocks."""

    host: str
    port: int
    protocol: str = "TCP"
    timeout_s: float = SILENCE_S

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.protocol}"


@dataclass(frozen=True)
class Client:
    """A pod that asks."""

    bed: Bed
    pod: Running
    times: int = field(default=REQUESTS)

    async def survey(self, door: Door) -> Answer:
        """Who answered how often; the outcome of the first that was not answered, if there is one."""
        details = {"host": door.host, "port": door.port, "protocol": door.protocol, "timeout_s": door.timeout_s}
        return await self.bed.ask(self.pod, "survey", times=self.times, **details)

    async def reaches(self, door: Door, *names: str) -> None:
        """Wait until exactly these answer; AssertionError with who did instead."""
        await self._until(door, lambda answer: set(answer.get("names") or ()) == set(names), f"{sorted(names)}")

    async def reaches_one_of(self, door: Door, names: Collection[str]) -> str:
        """Wait until always the same one of these answers; its name."""
        answer = await self._until(
            door,
            lambda answer: len(answer.get("names") or ()) == 1 and set(answer["names"]) <= set(names),
            f"one of {sorted(names)}, always the same,",
        )
        return str(next(iter(answer["names"])))

    async def meets(self, door: Door, outcome: str) -> None:
        """Wait until the first request has this outcome: REFUSED or TIMEOUT."""
        await replace(self, times=1)._until(door, lambda answer: answer["outcome"] == outcome, outcome)

    async def is_turned_away(self, door: Door) -> None:
        """Wait until nobody answers, in whatever way."""
        await replace(self, times=1)._until(door, lambda answer: answer["outcome"] != "OK", "no answer")

    async def finds_no_such_port(self, door: Door) -> None:
        """Wait until the ClusterIP's port is treated as one that its Service does not have.

        It is refused; but iptables knows only the ports that exist, and lets the packet go where the routes send it
        (KEP-3866).
        """
        wanted = BY_THE_ROUTES if self.bed.subject.proxy == "iptables" else {"REFUSED"}
        await replace(self, times=1)._until(door, lambda answer: answer["outcome"] in wanted, " or ".join(wanted))

    async def sees(self, door: Door) -> str:
        """The address under which the server sees this client."""
        await self._until(door, lambda answer: answer["outcome"] == "OK", "an answer")
        if door.protocol == "UDP":
            answer = await self.bed.ask(self.pod, "udp", host=door.host, port=door.port, message="clientip")
        else:
            answer = await self.bed.ask(self.pod, "http", host=door.host, port=door.port, path="/clientip")
        return str(answer.get("body", answer)).rpartition(":")[0]

    async def _until(self, door: Door, is_wanted: Wanted, what: str) -> Answer:
        last: Answer = {}

        async def check() -> bool:
            last.clear()
            last.update(await self.survey(door))
            return is_wanted(last)

        try:
            await wait_until_async(check, PROGRAMMED_S, "", every_s=0.05)
        except TimedOut:
            met = last.get("names") or last.get("error") or last["outcome"]
            asked = f"{self.pod.name} on {self.pod.node} asked {door}"
            raise AssertionError(f"{asked}: {met} instead of {what} for {PROGRAMMED_S:g} s") from None
        return last
