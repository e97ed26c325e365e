"""The refusals of the API server, in Kubernetes' own words (apimachinery `pkg/api/errors`), with their details."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from testbed.api.kinds import Kind
from testbed.api.wellknown import EXEC_SUBPROTOCOL
from testbed.errors import AlreadyExists, BadRequest, Conflict, Forbidden, Invalid, NotFound

STALE = "the object has been modified; please apply your changes to the latest version and try again"


@dataclass(frozen=True)
class Cause:
    """One mistake of an object: a StatusCause of `details.causes`."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"

    def wire(self) -> dict[str, str]:
        """As JSON holds it."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


def required(field: str, detail: str = "") -> Cause:
    """The field is missing or empty."""
    return Cause(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


def invalid(field: str, value: Any, detail: str) -> Cause:
    """The field's value breaks a rule."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {detail}")


def unsupported(field: str, value: Any, supported: Sequence[str]) -> Cause:
    """The field's value is none of those listed."""
    listed = ", ".join(_shown(choice) for choice in supported)
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {listed}")


def duplicate(field: str, value: Any) -> Cause:
    """The value stands in the list already."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}")


def forbidden_field(field: str, detail: str) -> Cause:
    """The field may not be set, or not changed."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def immutable(field: str, value: Any) -> Cause:
    """The field keeps its first value."""
    return invalid(field, value, "field is immutable")


def too_long(field: str, limit: int, what: str = "bytes") -> Cause:
    """The field exceeds a size."""
    return Cause(field, "FieldValueTooLong", f"Too long: must have at most {limit} {what}")


def not_found(kind: Kind, name: str) -> NotFound:
    """`pods "x" not found`"""
    return NotFound(f'{kind.qualified} "{name}" not found', details=about(kind, name))


def already_exists(kind: Kind, name: str) -> AlreadyExists:
    """`pods "x" already exists`"""
    return AlreadyExists(f'{kind.qualified} "{name}" already exists', details=about(kind, name))


def conflict(kind: Kind, name: str, why: str = STALE) -> Conflict:
    """`Operation cannot be fulfilled on pods "x": …`"""
    message = f'Operation cannot be fulfilled on {kind.qualified} "{name}": {why}'
    return Conflict(message, details=about(kind, name))


def forbidden(kind: Kind, name: str, why: str, causes: Sequence[Cause] = ()) -> Forbidden:
    """`pods "x" is forbidden: …`"""
    details = about(kind, name)
    if causes:
        details["causes"] = [cause.wire() for cause in causes]
    return Forbidden(f'{kind.qualified} "{name}" is forbidden: {why}', details=details)


def is_invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> Invalid:
    """`Pod "x" is invalid: …` with every mistake, both in the message and as causes."""
    said = str(causes[0]) if len(causes) == 1 else f"[{', '.join(str(cause) for cause in causes)}]"
    qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    details = {**about(kind, name), "kind": kind.kind, "causes": [cause.wire() for cause in causes]}
    return Invalid(f'{qualified} "{name}" is invalid: {said}', details=details)


def cannot_be_read(kind: Kind, causes: Sequence[Cause]) -> BadRequest:
    """The document is not of the kind's shape: what decoding into Go structs refuses."""
    said = "; ".join(str(cause) for cause in causes)
    message = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {said}'
    return BadRequest(message, details={"causes": [cause.wire() for cause in causes]})


def no_subprotocol() -> BadRequest:
    """exec without a WebSocket, or in none of its forms that are served."""
    return BadRequest(f"you must specify at least 1 of the WebSocket sub-protocols: {EXEC_SUBPROTOCOL}")


def about(kind: Kind, name: str) -> dict[str, Any]:
    """`details` of an object; an empty name or group is left out, as Go's omitempty does."""
    fields = {"name": name, "group": kind.group, "kind": kind.plural}
    return {field: value for field, value in fields.items() if value}


def _shown(value: Any) -> str:
    return orjson.dumps(value).decode()
