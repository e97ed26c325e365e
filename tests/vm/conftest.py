"""One virtual machine for all tests of this tier."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.tiers import FULL, ONLY_IN_FULL
from tests.vm.machine import Machine, why_not


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that both sides write to."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def machine(shared: Path) -> Iterator[Machine]:
    """A machine that has booted; skipped, with the reason, where none can be, or where not all is to be tested."""
    if reason := why_not() or ("" if FULL else ONLY_IN_FULL):
        pytest.skip(reason)
    with closing(Machine(shared)) as machine:
        yield machine
