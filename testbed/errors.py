"""Every error the testbed raises on purpose, with the exit code that the command line gives it.

A message names the thing, its state and the way out. `ApiError` is a Kubernetes `Status` and travels over HTTP
unchanged (API conventions, "Error codes").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class TestbedError(Exception):
    """An error with a sentence for the user; the command line prints it and exits with `exit_code`."""

    exit_code = 4


class CheckFailed(TestbedError):
    """A check ran and its answer is no: a regression, a path that carries no full-size packet."""

    exit_code = 1


class BadInput(TestbedError):
    """What the user wrote is wrong: a file, an option, a name."""

    exit_code = 2


class MachineLacks(TestbedError):
    """The machine has no such feature, program or permission; the message says how to get it."""

    exit_code = 3


class TimedOut(TestbedError):
    """Something awaited did not come in time."""


class CommandFailed(TestbedError):
    """A program that was run ended with an error."""


class KernelError(TestbedError):
    """The kernel refused an operation; `errno` is its own."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class ApiError(TestbedError):
    """A Kubernetes `Status` of status Failure."""

    code = 500
    reason = "InternalError"

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})

    def status(self) -> dict[str, Any]:
        """The wire form: a v1 Status."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            status["details"] = self.details
        return status


class BadRequest(ApiError):
    """The request cannot be understood."""

    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    """No token, or an unknown one."""

    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    """Known, and not allowed."""

    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    """No such object, kind or path."""

    code, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    """The path exists; the verb does not apply to it."""

    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    """None of the media types asked for can be served."""

    code, reason = 406, "NotAcceptable"


class AlreadyExists(ApiError):
    """A create of a name that is taken."""

    code, reason = 409, "AlreadyExists"


class Conflict(ApiError):
    """A write based on a version that is no longer the newest."""

    code, reason = 409, "Conflict"


class Gone(ApiError):
    """A watch or continue token from a version no longer held (reason Expired)."""

    code, reason = 410, "Expired"


class RequestTooLarge(ApiError):
    """A body above the limit."""

    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    """A body in a format that the server does not read."""

    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    """An object that breaks its kind's rules; `details.causes` lists every field."""

    code, reason = 422, "Invalid"


class ServerTimeout(ApiError):
    """The server cannot answer in time, or not yet at this version."""

    code, reason = 504, "Timeout"


class ServiceUnavailable(ApiError):
    """The server, or the agent behind it, cannot be reached."""

    code, reason = 503, "ServiceUnavailable"


_BY_REASON: dict[str, type[ApiError]] = {
    cls.reason: cls
    for cls in (
        BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, AlreadyExists, Conflict, Gone,
        RequestTooLarge, UnsupportedMediaType, Invalid, ServerTimeout, ServiceUnavailable,
    )
}  # fmt: skip
_BY_CODE: dict[int, type[ApiError]] = {cls.code: cls for cls in _BY_REASON.values()} | {409: Conflict}


def api_error(status: Mapping[str, Any]) -> ApiError:
    """The exception for a `Status` read from the wire; an unknown reason falls back to its code."""
    code = int(status.get("code") or 500)
    cls = _BY_REASON.get(status.get("reason") or "") or _BY_CODE.get(code) or ApiError
    error = cls(status.get("message") or f"the API server answered {code}", details=status.get("details"))
    if cls is ApiError:
        error.code, error.reason = code, status.get("reason") or "InternalError"
    return error


def joined(mistakes: Sequence[str]) -> str:
    """Several mistakes as one message, a line each."""
    return "\n".join(mistakes)
