"""When a probe asks, and what its answers come to.

The first question comes at once and, while the container is young and the answer is no, is repeated quickly, so that a
pod is Ready within milliseconds of its program; after that every periodSeconds. Only those count as failures.
Source: "Configure Liveness, Readiness and Startup Probes"; kubelet's prober worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from testbed.agent.actions import Action, act

EAGER_S = 2.0
"""For so long, and no longer than a period, a container that was never found well is asked every `EAGER_PERIOD_S`."""
EAGER_PERIOD_S = 0.02

Tell = Callable[[bool | None, str], None]
"""What is held now (None: nothing yet), and why the last question failed; empty where it did not."""


@dataclass(frozen=True)
class Timing:
    """When and how often to ask."""

    initial_delay_s: float
    period_s: float
    timeout_s: float
    successes: int
    failures: int

    @classmethod
    def of(cls, probe: Mapping[str, Any]) -> Timing:
        """As the manifest says it, with Kubernetes' defaults."""
        return cls(
            initial_delay_s=probe.get("initialDelaySeconds") or 0,
            period_s=probe.get("periodSeconds") or 10,
            timeout_s=probe.get("timeoutSeconds") or 1,
            successes=probe.get("successThreshold") or 1,
            failures=probe.get("failureThreshold") or 3,
        )


async def keep_asking(probe: Action, timing: Timing, tell: Tell, *, held: bool | None) -> None:
    """Ask until cancelled. `tell` is told whenever what is held turns, and each failure that counts.

    `held` is what to believe until enough answers in a row say otherwise; False is a container never found well.
    """
    loop = asyncio.get_running_loop()
    await asyncio.sleep(timing.initial_delay_s)
    young_until = loop.time() + min(EAGER_S, timing.period_s)
    last, streak, was_well = held, 0, bool(held)
    while True:
        reason = await act(probe, timing.timeout_s)
        if reason and not was_well and loop.time() < young_until:
            await asyncio.sleep(EAGER_PERIOD_S)
            continue
        is_well = not reason
        streak = streak + 1 if is_well is last else 1
        last, was_well = is_well, was_well or is_well
        turns = is_well is not held and streak >= (timing.successes if is_well else timing.failures)
        if turns:
            held = is_well
        if turns or reason:
            tell(held, reason)
        await asyncio.sleep(timing.period_s)
