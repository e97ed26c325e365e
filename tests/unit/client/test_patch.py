"""JSON patch, by the examples of RFC 6902, appendix A, and what it must refuse."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.api.patch import json_patch
from testbed.errors import BadRequest, Invalid


def op(name: str, path: str, **fields: Any) -> dict[str, Any]:
    return {"op": name, "path": path, **fields}


@pytest.mark.parametrize(
    ("document", "operation", "expected"),
    [
        ({"foo": "bar"}, op("add", "/baz", value="qux"), {"foo": "bar", "baz": "qux"}),
        ({"foo": ["bar", "baz"]}, op("add", "/foo/1", value="qux"), {"foo": ["bar", "qux", "baz"]}),
        ({"foo": ["bar"]}, op("add", "/foo/-", value=["abc"]), {"foo": ["bar", ["abc"]]}),
        ({"foo": ["bar"]}, op("add", "/foo/1", value="baz"), {"foo": ["bar", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, op("remove", "/baz"), {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, op("remove", "/foo/1"), {"foo": ["bar", "baz"]}),
        ({"baz": "qux"}, op("replace", "/baz", value="boo"), {"baz": "boo"}),
        ({"foo": {"a": 1}, "qux": {}}, op("move", "/qux/b", **{"from": "/foo/a"}), {"foo": {}, "qux": {"b": 1}}),
        ({"foo": ["a", "b", "c"]}, op("move", "/foo/2", **{"from": "/foo/0"}), {"foo": ["b", "c", "a"]}),
        ({"foo": [1]}, op("copy", "/bar", **{"from": "/foo"}), {"foo": [1], "bar": [1]}),
        ({"baz": "qux"}, op("test", "/baz", value="qux"), {"baz": "qux"}),
        ({"/": 9, "~1": 10}, op("test", "/~01", value=10), {"/": 9, "~1": 10}),
        ({"a": {"b/c": 1}}, op("replace", "/a/b~1c", value=2), {"a": {"b/c": 2}}),
        ({"foo": "bar"}, op("replace", "", value={"new": 1}), {"new": 1}),
    ],
)
def test_each_operation_does_what_the_standard_says(document: Any, operation: dict[str, Any], expected: Any) -> None:
    before = repr(document)
    assert json_patch(document, [operation]) == expected
    assert repr(document) == before


@pytest.mark.parametrize(
    "operation",
    [
        op("add", "/baz/bat", value="qux"), op("replace", "/baz", value=1), op("remove", "/baz"),
        op("test", "/foo", value="other"), op("add", "/list/5", value=1), op("add", "/list/x", value=1),
        op("add", "/foo/x", value=1), op("add", "foo", value=1), op("add", "/x"), op("copy", "/x", **{"from": "/y"}),
        op("move", "/list/a", **{"from": "/list"}), op("replace", "/list/-", value=1),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_invalid(operation: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        json_patch({"foo": "bar", "list": [1]}, [operation])


@pytest.mark.parametrize(
    "patch", [{}, None, ["remove"], [{"op": "remove"}], [op("take", "/foo")], [op("add", "", x=1) | {"op": []}]]
)
def test_what_is_no_patch_is_a_bad_request(patch: Any) -> None:
    with pytest.raises(BadRequest):
        json_patch({"foo": "bar"}, patch)
