"""Who may ask: whoever bears the cluster's token."""

from __future__ import annotations

import hmac

from testbed.errors import BadInput, Unauthorized

ANONYMOUS_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})
"""What a load balancer or a person without credentials may see."""


class BearerToken:
    """One token for administrators, agents and daemons alike (RFC 6750)."""

    def __init__(self, token: str) -> None:
        if not token:
            raise BadInput("the cluster's token is empty: whoever sends none would be let in")
        self._token = token.encode()

    def require(self, path: str, authorization: bytes) -> None:
        """Unauthorized unless the header bears the token; compared in constant time."""
        if path in ANONYMOUS_PATHS:
            return
        scheme, _, presented = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(presented.strip(), self._token):
            raise Unauthorized("Unauthorized")
