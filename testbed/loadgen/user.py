"""A Locust user that costs little: inherit from it, and a locustfile measures the network instead of the generator.

    from testbed.loadgen.user import RawHttpUser

    class Shop(RawHttpUser):
        path = "/cart"

This alone requests `/cart` over one kept-alive connection, one request at a time, as fast as the answers come.
With tasks of its own a user calls `self.get(path)` or `self.repeat(path)`. Latencies are exact to the microsecond and
appear in Locust's own statistics too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

import gevent
from locust import User
from locust.exception import StopTest

from testbed.loadgen.connection import Connection, RequestFailed
from testbed.loadgen.http import request
from testbed.loadgen.recorder import Recorder
from testbed.loadgen.stats import recorder_of

AFTER_FAILURE_S = 0.01
"""Pause after a failed request, so that a server that is gone is not asked a hundred thousand times a second."""


@dataclass(frozen=True)
class Response:
    """A complete response, its head included."""

    status: int
    content: bytes
    elapsed_us: float


def steady(user: RawHttpUser) -> None:
    """The task of users that define none: their `path`, again and again."""
    user.repeat(user.path)


class RawHttpUser(User):
    """HTTP/1.1 over one raw socket, one request at a time: keep-alive, chunked or not; no TLS, no redirects."""

    abstract = True
    path: ClassVar[str] = "/"
    headers: ClassVar[Mapping[str, str]] = {}
    timeout_s: ClassVar[float] = 5.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.tasks = [task for task in cls.tasks if task is not steady] or [steady]

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        url = urlsplit(self.host or "")
        if url.scheme != "http" or not url.hostname:
            raise StopTest(f"{type(self).__name__} needs a host of the form http://name:port, not {self.host!r}")
        self._netloc = url.netloc
        self._connection = Connection(url.hostname, url.port or 80, self.timeout_s)
        self._recorder: Recorder = recorder_of(environment)

    def on_stop(self) -> None:
        """Close the connection."""
        self._connection.close()

    def get(self, path: str, *, name: str = "") -> Response | None:
        """One GET, recorded under `name` (default: the path); None where it failed, which is recorded too."""
        return self.request("GET", path, name=name)

    def request(self, method: str, path: str, *, body: bytes = b"", name: str = "") -> Response | None:
        """One request of any method but HEAD and CONNECT, whose responses end differently."""
        series = self._recorder.series(method, name or path)
        try:
            head, data, elapsed_ns = self._connection.exchange(request(method, path, self._netloc, self.headers, body))
        except RequestFailed as error:
            series.fail(str(error))
            gevent.sleep(AFTER_FAILURE_S)
            return None
        if head.status >= 400:
            series.fail(f"the server answered with status {head.status}")
        else:
            series.record(elapsed_ns)
        return Response(head.status, data[head.size :], elapsed_ns / 1000)

    def repeat(self, path: str, *, name: str = "", seconds: float = 0.1) -> None:
        """GET `path` again and again for `seconds`: the cheapest way to make requests."""
        series = self._recorder.series("GET", name or path)
        try:
            self._connection.repeat(request("GET", path, self._netloc, self.headers), series, seconds)
        except RequestFailed as error:
            series.fail(str(error))
            gevent.sleep(AFTER_FAILURE_S)
