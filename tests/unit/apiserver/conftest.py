from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from testbed.apiserver.resources import Resources
from tests.unit.apiserver.parts import opened


@pytest.fixture
async def resources(tmp_path: Path) -> AsyncIterator[Resources]:
    """The verbs over a fresh store."""
    async with opened(tmp_path) as resources:
        yield resources
