"""The shape of documents: what decoding into Go structs is for Kubernetes.

A shape checks a JSON value and collects a cause for every part that is of the wrong type. Fields that no shape names
pass unread, so that manifests written for a larger API are kept whole. A null is an absent field, and is removed.
After a shape has passed, the code behind it reads the fields that the shape names without asking for their types.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from testbed.apiserver.refusals import Cause

Shape = Callable[[Any, str, list[Cause]], None]

_NAMES = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "an integer", float: "a number"}


def _scalar(expected: str, *types: type) -> Shape:
    def check(value: Any, path: str, causes: list[Cause]) -> None:
        if type(value) not in types:
            causes.append(_wrong(path, expected, value))

    return check


text = _scalar("a string", str)
integer = _scalar("an integer", int)
boolean = _scalar("a boolean", bool)
integer_or_text = _scalar("an integer or a string", int, str)
quantity = _scalar("a quantity", int, float, str)


def anything(_value: Any, _path: str, _causes: list[Cause]) -> None:
    """Any JSON value."""


def time(value: Any, path: str, causes: list[Cause]) -> None:
    """metav1.Time or MicroTime: RFC 3339."""
    try:
        if datetime.fromisoformat(value).tzinfo is None:
            causes.append(_wrong(path, "an RFC 3339 time with its zone", value))
    except (TypeError, ValueError):
        causes.append(_wrong(path, "an RFC 3339 time", value))


def list_of(item: Shape) -> Shape:
    """A list, each item of the shape."""

    def check(value: Any, path: str, causes: list[Cause]) -> None:
        if type(value) is not list:
            causes.append(_wrong(path, "a list", value))
            return
        for index, element in enumerate(value):
            item(element, f"{path}[{index}]", causes)

    return check


def map_of(item: Shape) -> Shape:
    """An object with any keys, each value of the shape."""

    def check(value: Any, path: str, causes: list[Cause]) -> None:
        if type(value) is not dict:
            causes.append(_wrong(path, "an object", value))
            return
        for key, element in value.items():
            item(element, f"{path}[{key}]", causes)

    return check


def struct(**fields: Shape) -> Shape:
    """An object whose known fields have these shapes; nulls are removed from it."""

    def check(value: Any, path: str, causes: list[Cause]) -> None:
        if type(value) is not dict:
            causes.append(_wrong(path, "an object", value))
            return
        nulls = []
        prefix = f"{path}." if path else ""
        for field, element in value.items():
            if element is None:
                nulls.append(field)
            elif shape := fields.get(field):
                shape(element, prefix + field, causes)
        for field in nulls:
            del value[field]

    return check


def _wrong(path: str, expected: str, value: Any) -> Cause:
    found = _NAMES.get(type(value), "null") if not isinstance(value, str) or expected == "a string" else repr(value)
    return Cause(path, "FieldValueTypeInvalid", f"expected {expected}, got {found}")


OBJECT_REFERENCE = struct(
    apiVersion=text, kind=text, name=text, namespace=text, uid=text, resourceVersion=text, fieldPath=text
)
OWNER_REFERENCE = struct(
    apiVersion=text, kind=text, name=text, uid=text, controller=boolean, blockOwnerDeletion=boolean
)
METADATA = struct(
    name=text,
    generateName=text,
    namespace=text,
    uid=text,
    resourceVersion=text,
    generation=integer,
    creationTimestamp=time,
    deletionTimestamp=time,
    deletionGracePeriodSeconds=integer,
    labels=map_of(text),
    annotations=map_of(text),
    finalizers=list_of(text),
    ownerReferences=list_of(OWNER_REFERENCE),
)
CONDITION = struct(
    type=text, status=text, reason=text, message=text, lastTransitionTime=time, observedGeneration=integer
)
LABEL_SELECTOR = struct(
    matchLabels=map_of(text),
    matchExpressions=list_of(struct(key=text, operator=text, values=list_of(text))),
)


def kind_shape(**fields: Shape) -> Shape:
    """The shape of a whole object."""
    return struct(apiVersion=text, kind=text, metadata=METADATA, **fields)
