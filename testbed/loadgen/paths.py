"""A few plain requests, while a probe watches which way their packets take."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from testbed.loadgen.connection import Connection, RequestFailed
from testbed.loadgen.http import request


def check_path(host: str, requests: int) -> dict[str, Any]:
    """GET / `requests` times over one connection; how many were answered, and why the first of the others was not."""
    url = urlsplit(host)
    connection = Connection(url.hostname or "", url.port or 80, timeout_s=5.0)
    asked = request("GET", "/", url.netloc, {})
    answered, error = 0, ""
    for _ in range(requests):
        try:
            connection.exchange(asked)
            answered += 1
        except RequestFailed as failure:
            error = error or str(failure)
    connection.close()
    return {"requests": answered, "errors": requests - answered, "error": error}
