"""CPU time from /proc/stat."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from testbed.loadgen.cpu import pin, read_cpu_times
from testbed.loadgen.priority import PREFERRED_NICE, session_nice

BEFORE = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 0 50 1000 0 0 10 1 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 5\n"
AFTER = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 150 0 100 1050 0 0 40 21 0 0\ncpu1 0 0 0 200 0 0 0 0 0 0\nintr 6\n"


def test_busy_is_what_was_neither_idle_nor_stolen() -> None:
    before, after = read_cpu_times(BEFORE), read_cpu_times(AFTER)
    after = replace(after, monotonic_us=before.monotonic_us + 2_000_000)
    tick_us = 1_000_000 // os.sysconf("SC_CLK_TCK")
    first, second = after.since(before, [0, 1, 7])
    assert first.busy_us == 2_000_000 - 50 * tick_us - 20 * tick_us
    assert first.softirq_us == 30 * tick_us
    assert first.steal_us == 20 * tick_us
    assert second.busy_us == max(2_000_000 - 200 * tick_us, 0)


def test_this_machine_tells_its_cpus() -> None:
    assert set(pin(())) <= set(read_cpu_times().ticks)


def test_a_process_is_preferred_as_far_as_its_user_may() -> None:
    code = "from testbed.loadgen.priority import prefer; print(prefer())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20)
    assert int(done.stdout) in range(PREFERRED_NICE, 1)


def test_the_priority_of_a_session_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    (tmp_path / "autogroup").write_text("/autogroup-42 nice 3\n")
    assert session_nice(tmp_path / "autogroup") == 3
    assert session_nice(tmp_path / "none") == PREFERRED_NICE
