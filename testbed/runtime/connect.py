"""From a cluster's endpoint to a client of its API."""

from __future__ import annotations

from testbed.client.http import HttpClient
from testbed.runtime.protocol import Endpoint


def client_of(endpoint: Endpoint) -> HttpClient:
    """A client for that cluster; use it as `async with`."""
    return HttpClient(endpoint.url, endpoint.token, endpoint.ca, endpoint.socket)
