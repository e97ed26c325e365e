"""One proxy mode in the kernel alone: `python -m tests.benchmarks.proxy_door MODE SERVICES`, in a network namespace.

Prints one line of JSON after the other, so that what has been measured stays where the rest would take too long.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

from testbed.node.handles import open_handles
from testbed.proxy import MODES
from testbed.proxy.mode import Mode
from testbed.proxy.virtualport import Endpoint, Ports
from tests.benchmarks.proxy_objects import HERE, TARGET, addresses, cluster_ip, ports, virtual_port

CHANGES = 10
_ELSEWHERE = Endpoint(IPv4Address("10.244.255.1"), TARGET)


def main(mode_name: str, count: int) -> None:
    """Load, change, compare, remove."""
    handles = open_handles(None)
    mode = MODES[mode_name](handles.doors)
    served = ports(count)
    began_cpu, began = time.process_time(), time.perf_counter()
    mode.load(served, HERE)
    say(load_s=time.perf_counter() - began, load_cpu_s=time.process_time() - began_cpu)
    say(change_s=statistics.median(_changes(mode, served, count)))
    say(add_s=statistics.median(_additions(mode, served, count)))
    say(differences_s=_timed(lambda: mode.differences(served)))
    say(teardown_s=_timed(mode.teardown))
    handles.close()


def say(**found: float) -> None:
    """A line."""
    print(json.dumps(found), flush=True)  # noqa: T201


def _changes(mode: Mode, served: Ports, count: int) -> list[float]:
    """Seconds that one endpoint takes to be another, there and back."""
    which = virtual_port(count, ()).service
    other = replace(virtual_port(count, addresses(count, 2)), cluster=(served[which][0].cluster[0], _ELSEWHERE))
    changed = {**served, which: (other,)}
    seconds: list[float] = []
    for _ in range(CHANGES // 2):
        for before, after in ((served, changed), (changed, served)):
            seconds.append(_timed(lambda before=before, after=after: mode.change(before, after, [which])))  # type: ignore[misc]
    return seconds


def _additions(mode: Mode, served: Ports, count: int) -> list[float]:
    """Seconds that one more Service takes; it goes again, untimed."""
    new = replace(virtual_port(count + 1, addresses(1, 2)), cluster_ip=cluster_ip(count + 1))
    more = {**served, new.service: (new,)}
    seconds: list[float] = []
    for _ in range(CHANGES // 2):
        seconds.append(_timed(lambda: mode.change(served, more, [new.service])))
        mode.change(more, served, [new.service])
    return seconds


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
