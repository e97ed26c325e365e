from collections.abc import AsyncIterator

import pytest

from testbed.client.protocol import Client
from tests.unit.client.clients import CLIENTS


@pytest.fixture(params=["fake", "local"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """A controller must not care whether it works in memory or over the real store."""
    async with CLIENTS[request.param]() as client:
        yield client
