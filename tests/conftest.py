"""Tiers of tests: which ran, which were skipped and why, and which may not be skipped here.

A test's tier follows from where it stands, and for whole clusters from the runtime in its name or its file's.
TESTBED_REQUIRE names tiers (`docker,kernel`) whose skips are failures: continuous integration proves both runtimes, or
says that it did not.
"""

from __future__ import annotations

import os
import signal
from collections import Counter, defaultdict
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.tiers import FULL, ONLY_IN_FULL

TIERS = {
    "unit": "pure, or over a fake: everywhere, in seconds",
    "kernel": "throw-away network namespaces: root, or a user namespace",
    "netns": "whole clusters on bare namespaces",
    "docker": "whole clusters on a Docker engine",
    "clients": "programs that are not ours against the API, where they are installed",
    "vm": "what this kernel lacks, in a virtual machine",
}
REQUIRED = frozenset(filter(None, os.environ.get("TESTBED_REQUIRE", "").split(",")))
_HERE = Path(__file__).parent

# Time judges nothing here: two cores may be busy with something else.
settings.register_profile("testbed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("testbed")
_OUTCOMES = pytest.StashKey["Outcomes"]()


class Outcomes:
    """What became of each tier."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.reasons: dict[str, Counter[str]] = defaultdict(Counter)

    def note(self, tier: str, report: pytest.TestReport) -> None:
        """Count a test once: by its call, or by a set-up that did not get that far."""
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self.counts[tier][report.outcome] += 1
        if report.skipped:
            self.reasons[tier][_reason(report)] += 1


def pytest_configure(config: pytest.Config) -> None:
    """Make the tiers markers, so that `-m "unit or kernel"` selects."""
    if unknown := REQUIRED - TIERS.keys():
        raise pytest.UsageError(f"TESTBED_REQUIRE names {', '.join(sorted(unknown))}; tiers are {', '.join(TIERS)}")
    for tier, what in TIERS.items():
        config.addinivalue_line("markers", f"{tier}: {what}")
    config.addinivalue_line("markers", f"full: {ONLY_IN_FULL}")
    config.addinivalue_line("markers", "lab: needs root, or to be run as root of a user namespace")
    config.stash[_OUTCOMES] = Outcomes()
    # A shell lets what it starts in the background ignore SIGINT, and so would every program that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test its tier, and `lab` where it makes namespaces itself: a plain user runs those under unshare."""
    for item in items:
        item.add_marker(tier_of(item))
        if _needs_lab(item):
            item.add_marker("lab")


def _needs_lab(item: pytest.Item) -> bool:
    """Whether it asks for the fixture `lab`; a contract over fake and real thing does so for the real one only."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return "lab" in getattr(item, "fixturenames", ()) or (_top(item) == "kernel" and "real" in parameters)


def tier_of(item: pytest.Item) -> str:
    """The tier of a test. What the machine's own kernel may lack is there for the one in the virtual machine."""
    top = _top(item)
    if top == "kernel" and "ipvs" in item.path.stem + item.name:
        return "vm"
    if top in ("unit", "kernel", "vm"):
        return top
    if "kubectl" in item.name:
        return "clients"
    return "docker" if "docker" in item.path.stem + item.name.partition("[")[2] else "netns"


def _top(item: pytest.Item) -> str:
    return item.path.relative_to(_HERE).parts[0]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What takes long is left to the full run."""
    if item.get_closest_marker("full") and not FULL:
        pytest.skip(ONLY_IN_FULL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip of a required tier is a failure, but for what is left to the full run."""
    report = yield
    tier = tier_of(item)
    is_excused = hasattr(report, "wasxfail") or (report.skipped and _reason(report) == ONLY_IN_FULL)
    if report.skipped and tier in REQUIRED and not is_excused:
        report.outcome = "failed"
        report.longrepr = f"tier {tier} is required here (TESTBED_REQUIRE), and this was skipped: {_reason(report)}"
    item.config.stash[_OUTCOMES].note(tier, report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line per tier, and below it why something of it was skipped."""
    outcomes = config.stash[_OUTCOMES]
    terminalreporter.section("tiers")
    for tier in (tier for tier in TIERS if outcomes.counts[tier]):
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.counts[tier].items()))
        terminalreporter.write_line(f"{tier:7} {told}  ({TIERS[tier]})")
        for reason, count in outcomes.reasons[tier].most_common():
            terminalreporter.write_line(f"        {count} skipped: {reason}")


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)
