"""A host for tests of the agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.agent.host import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """One host, whose agent is not running yet."""
    return Host(tmp_path)
