"""GET / over a new connection for every request: what a Service costs is paid when a connection begins."""

from collections.abc import Mapping
from typing import ClassVar

from testbed.loadgen.user import RawHttpUser


class Connect(RawHttpUser):
    """Each response ends its connection (RFC 9112, 9.6), so that the next request opens one."""

    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}
