"""Label and field selectors: parse once, then a plain predicate over objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from testbed.api.objects import Object, labels
from testbed.errors import BadRequest

Predicate = Callable[[Object], bool]

_SET = re.compile(r"^\s*([^\s=!,()]+)\s+(in|notin)\s*\(([^)]*)\)\s*$")
_EQUALS = re.compile(r"^\s*([^\s=!,()]+)\s*(==|=|!=)\s*([^\s=!,()]*)\s*$")
_EXISTS = re.compile(r"^\s*(!?)\s*([^\s=!,()]+)\s*$")
_COMMA = re.compile(r",(?![^(]*\))")


def everything(_: Object) -> bool:
    """The selector that selects every object."""
    return True


def label_selector(text: str) -> Predicate:
    """`a=b,c!=d,e in (f,g),h notin (i),j,!k` (API concepts, "Label selectors"); BadRequest says which part is wrong."""
    tests = [_label_test(part) for part in _COMMA.split(text) if part.strip()]
    return lambda obj: all(test(labels(obj)) for test in tests)


def match_labels(wanted: Mapping[str, str]) -> Predicate:
    """Every given label has the given value (Service.spec.selector)."""
    return lambda obj: wanted.items() <= labels(obj).items()


def structured_selector(selector: Mapping[str, Any]) -> Predicate:
    """metav1.LabelSelector: matchLabels and matchExpressions, all of which must hold."""
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    tests = [_expression_test(expression) for expression in selector.get("matchExpressions") or []]
    return lambda obj: wanted.items() <= labels(obj).items() and all(test(labels(obj)) for test in tests)


def field_selector(text: str) -> Predicate:
    """`metadata.name=a,spec.nodeName!=b`: dotted paths compared as strings; an absent field is the empty string."""
    tests = []
    for part in filter(None, text.split(",")):
        match = _EQUALS.match(part)
        if not match:
            raise BadRequest(f"field selector {part!r} is not of the form path=value or path!=value")
        path, operator, value = match.groups()
        tests.append((tuple(path.split(".")), operator == "!=", value))
    return lambda obj: all((_field(obj, path) == value) is not negated for path, negated, value in tests)


def _field(obj: Mapping[str, Any], path: tuple[str, ...]) -> str:
    value: Any = obj
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _label_test(part: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _SET.match(part):
        name, operator, listed = match.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda have: name in have and have[name] in values
        return lambda have: name not in have or have[name] not in values
    if match := _EQUALS.match(part):
        name, operator, value = match.groups()
        if operator == "!=":
            return lambda have: have.get(name) != value
        return lambda have: have.get(name) == value
    if match := _EXISTS.match(part):
        negated, name = match.groups()
        return lambda have: (name in have) is not bool(negated)
    raise BadRequest(f"label selector {part.strip()!r} cannot be parsed")


def _expression_test(expression: Mapping[str, Any]) -> Callable[[Mapping[str, str]], bool]:
    name, operator = expression.get("key", ""), expression.get("operator")
    values = set(expression.get("values") or [])
    match operator:
        case "In":
            return lambda have: name in have and have[name] in values
        case "NotIn":
            return lambda have: name not in have or have[name] not in values
        case "Exists":
            return lambda have: name in have
        case "DoesNotExist":
            return lambda have: name not in have
    raise BadRequest(f"label selector operator {operator!r} is none of In, NotIn, Exists, DoesNotExist")
