"""The machine that carries the node: what a figure depends on beside the network."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_CPU = Path("/sys/devices/system/cpu")
_FILES: Mapping[str, Path] = {
    "governor": _CPU / "cpu0/cpufreq/scaling_governor",
    "smt": _CPU / "smt/control",
    "clock_source": Path("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    "load": Path("/proc/loadavg"),
    "pressure_cpu": Path("/proc/pressure/cpu"),
    "pressure_memory": Path("/proc/pressure/memory"),
}
_PACKAGES = ("testbed", "locust", "gevent", "hdrhistogram")


def machine() -> dict[str, Any]:
    """Kernel, CPUs, their governor, what else runs, and the versions of what measures; unknown things are left out."""
    facts: dict[str, Any] = {name: text for name, file in _FILES.items() if (text := _text(file))}
    return {
        "kernel": platform.release(),
        "cpu": cpu_model(_text(Path("/proc/cpuinfo"))),
        "cpus": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        "hypervisor": "hypervisor" in _text(Path("/proc/cpuinfo")).split(),
        "steal_since_boot": steal(_text(Path("/proc/stat"))),
        **facts,
        "versions": {"python": platform.python_version(), **versions()},
    }


def cpu_model(cpuinfo: str) -> str:
    """The first `model name`; the architecture where a machine tells none (arm64)."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1] if found else platform.machine()


def steal(stat: str) -> float:
    """The share of all CPU time since boot that the hypervisor kept; `stat` is the text of /proc/stat."""
    columns = [int(column) for column in stat.partition("\n")[0].split()[1:9]]
    return round(columns[7] / max(sum(columns), 1), 5) if len(columns) == 8 else 0.0


def versions() -> dict[str, str]:
    """Of the packages that measure, as far as they are installed."""
    installed = {}
    for package in _PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
