"""What pydantic finds wrong with a document, in the words of a person who has to mend the file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from testbed.topology.source import Loc, Mistake

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

M = TypeVar("M", bound="BaseModel")
Schema = Mapping[str, Any]


def mistakes_of(value: Any, model: type[M]) -> M | list[Mistake]:
    """The document as a `model`, or everything that is wrong with it."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        if stranger := _other_kind(value, error):
            return [stranger]
        schema = model.model_json_schema()
        errors = _without_echoes(error.errors())
        found = {mistake.loc: mistake for mistake in (_mistake(e, value, schema) for e in errors)}
        return list(found.values())


_TAKEN_BY = {"Topology": "testbed up", "Comparison": "testbed compare"}


def _other_kind(value: Any, error: ValidationError) -> Mistake | None:
    """A file of our other kind: everything else that seems wrong with it only follows from that."""
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind not in _TAKEN_BY or not any(found["loc"] == ("kind",) for found in error.errors()):
        return None
    return Mistake(("kind",), f"is {kind}: that is what `{_TAKEN_BY[kind]}` takes")


def _without_echoes(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """A list whose items were refused is also called too short: that is no mistake of its own."""
    refused = {error["loc"][:length] for error in errors for length in range(len(error["loc"]))}
    return [error for error in errors if error["type"] != "too_short" or error["loc"] not in refused]


def _mistake(error: ErrorDetails, document: Any, schema: Schema) -> Mistake:
    loc = _written(error["loc"], document)
    kind = error["type"]
    if kind == "extra_forbidden":
        return Mistake(loc, _unknown_key(loc, schema))
    sentence = _SENTENCES.get(kind)
    return Mistake(loc, sentence(error) if sentence else f"{error['msg']}, and is {error['input']!r}")


def _written(loc: Loc, document: Any) -> Loc:
    """The location as the file has it: pydantic also names the branch of a union, which nobody wrote."""
    steps: list[str | int] = []
    for index, step in enumerate(loc):
        if isinstance(document, Mapping) and (step in document or index == len(loc) - 1):
            document = document.get(step)
        elif isinstance(document, list) and isinstance(step, int) and step < len(document):
            document = document[step]
        else:
            continue
        steps.append(step)
    return tuple(steps)


def _unknown_key(loc: Loc, schema: Schema) -> str:
    known = _keys_at(loc[:-1], schema, schema)
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    if close:
        return f"is not a key that is known here; did you mean {close[0]}?"
    return f"is not a key that is known here; known are {', '.join(known)}"


def _keys_at(loc: Loc, schema: Schema, root: Schema) -> list[str]:
    """The keys that the JSON Schema allows at `loc`."""
    if reference := schema.get("$ref"):
        return _keys_at(loc, root["$defs"][reference.rpartition("/")[2]], root)
    if branches := schema.get("anyOf") or schema.get("oneOf"):
        return [key for branch in branches for key in _keys_at(loc, branch, root)]
    if not loc:
        return list(schema.get("properties", ()))
    if isinstance(loc[0], int):
        below = schema.get("items")
    else:
        named = schema.get("properties", {}).get(loc[0]) or schema.get("additionalProperties")
        below = named or next(iter(schema.get("patternProperties", {}).values()), None)
    return _keys_at(loc[1:], below, root) if isinstance(below, Mapping) else []


def _one_of(error: ErrorDetails) -> str:
    expected = error["ctx"]["expected"].replace("'", "")
    choices = expected.replace(" or ", ", ").split(", ")
    guess = difflib.get_close_matches(str(error["input"]), choices, n=1)
    hint = f"; did you mean {guess[0]}?" if guess and len(choices) > 1 else ""
    return f"is {error['input']!r}, and must be {expected}{hint}"


def _must_be(what: str) -> Callable[[ErrorDetails], str]:
    return lambda error: f"is {error['input']!r}, and must be {what}"


def _bound(words: str, name: str) -> Callable[[ErrorDetails], str]:
    return lambda error: f"is {error['input']}, and must be {words} {error['ctx'][name]}"


_SENTENCES: Mapping[str, Callable[[ErrorDetails], str]] = {
    "missing": lambda _: "is missing; it has to be given",
    "value_error": lambda error: str(error["ctx"]["error"]),
    "literal_error": _one_of,
    "string_type": lambda error: f"is {error['input']!r}, and must be text; put it in quotes",
    "string_too_short": lambda _: "is empty; give it a value",
    "int_type": _must_be("a whole number"),
    "bool_type": _must_be("true or false"),
    "float_type": _must_be("a number"),
    "dict_type": _must_be("a mapping (key: value)"),
    "model_type": _must_be("a mapping (key: value)"),
    "model_attributes_type": _must_be("a mapping (key: value)"),
    "list_type": _must_be("a list (- item)"),
    "tuple_type": _must_be("a list (- item)"),
    "too_short": lambda error: f"must hold at least {error['ctx']['min_length']}",
    "greater_than": _bound("more than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
}
