"""Changing an object by a document: JSON merge patch (RFC 7396) and JSON patch (RFC 6902)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from testbed.errors import BadRequest, Invalid

Steps = Sequence[str]
"""A JSON pointer (RFC 6901), taken apart. The first step is empty: it leads to the whole document."""


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: `null` removes a key, objects merge, everything else replaces. Neither argument is changed."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for field, value in patch.items():
        if value is None:
            merged.pop(field, None)
        else:
            merged[field] = merge_patch(merged.get(field), value)
    return merged


def is_plain(patch: Any) -> bool:
    """Whether a strategic merge patch means the same as a merge patch: it has no lists, and no `$` directives."""
    if isinstance(patch, Mapping):
        return all(not key.startswith("$") and is_plain(value) for key, value in patch.items())
    return not isinstance(patch, list)


def json_patch(target: Any, patch: Any) -> Any:
    """RFC 6902: all operations in their order, or Invalid with the first that cannot be done. `target` stays as it is.

    BadRequest for what is no JSON patch.
    """
    if not isinstance(patch, list):
        raise BadRequest("a JSON patch is a list of operations")
    place = {"": copy.deepcopy(target)}
    for operation in patch:
        act = _OPERATIONS.get(str(operation.get("op"))) if isinstance(operation, dict) else None
        if act is None or not isinstance(operation.get("path"), str):
            raise BadRequest(f"{operation} is no operation of a JSON patch")
        try:
            act(place, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            where = operation["path"]
            raise Invalid(f"the operation {operation['op']} of the JSON patch fails at {where!r}: {error}") from error
    return place.get("")


def _add(place: Any, operation: Mapping[str, Any]) -> None:
    _put(place, _steps(operation["path"]), copy.deepcopy(operation["value"]))


def _remove(place: Any, operation: Mapping[str, Any]) -> None:
    _take(place, _steps(operation["path"]))


def _replace(place: Any, operation: Mapping[str, Any]) -> None:
    steps = _steps(operation["path"])
    _find(place, steps)
    parent = _find(place, steps[:-1])
    parent[_index(parent, steps[-1])] = copy.deepcopy(operation["value"])


def _move(place: Any, operation: Mapping[str, Any]) -> None:
    source, to = _steps(operation["from"]), _steps(operation["path"])
    if to[: len(source)] == source and to != source:
        raise ValueError("a value cannot be moved into itself")
    _put(place, to, _take(place, source))


def _copy(place: Any, operation: Mapping[str, Any]) -> None:
    _put(place, _steps(operation["path"]), copy.deepcopy(_find(place, _steps(operation["from"]))))


def _test(place: Any, operation: Mapping[str, Any]) -> None:
    if (found := _find(place, _steps(operation["path"]))) != operation["value"]:
        raise ValueError(f"there is {found!r}")


_OPERATIONS: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "add": _add, "remove": _remove, "replace": _replace, "move": _move, "copy": _copy, "test": _test,
}  # fmt: skip


def _steps(pointer: str) -> Steps:
    if pointer and not pointer.startswith("/"):
        raise ValueError("a pointer begins with a slash")
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")]


def _find(place: Any, steps: Steps) -> Any:
    for step in steps:
        place = place[_index(place, step)]
    return place


def _put(place: Any, steps: Steps, value: Any) -> None:
    parent = _find(place, steps[:-1])
    if isinstance(parent, list):
        parent.insert(len(parent) if steps[-1] == "-" else _index(parent, steps[-1], beyond=1), value)
    else:
        parent[_index(parent, steps[-1])] = value


def _take(place: Any, steps: Steps) -> Any:
    parent = _find(place, steps[:-1])
    return parent.pop(_index(parent, steps[-1]))


def _index(parent: Any, step: str, *, beyond: int = 0) -> Any:
    """The key of a step in an object, or its number in a list, which may be `beyond` its end."""
    if isinstance(parent, dict):
        return step
    if not isinstance(parent, list):
        raise TypeError(f"{parent!r} has no parts")
    if not step.isdecimal() or not 0 <= int(step) < len(parent) + beyond:
        raise IndexError(f"the list has {len(parent)} items, and none at {step!r}")
    return int(step)
