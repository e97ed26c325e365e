"""Throw-away network namespaces for tests of the real kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.errors import KernelError
from tests.kernel.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab, cleared away afterwards; skipped where this user may make no network namespaces."""
    lab = Lab(tmp_path)
    try:
        lab.place("tb-c-try")
    except (KernelError, PermissionError) as error:
        pytest.skip(f"uid {os.getuid()} may make no network namespace ({error}); run under: unshare -Urnm")
    try:
        yield lab
    finally:
        lab.close()
