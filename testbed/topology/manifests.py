"""Kubernetes manifests: plain objects, each of which remembers where it was written.

Only the shape that every object has is looked at here; what a kind's own rules say, the API server answers, and
`Manifest.source` puts that answer back onto the line of the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.api.kinds import KINDS, Kind, kind_of
from testbed.api.objects import Object
from testbed.errors import BadInput, BadRequest, joined
from testbed.topology.load import Document, read
from testbed.topology.source import Loc, Mistake, Source


@dataclass(frozen=True)
class Manifest:
    """One object of a file. `loc` is its place in the document: empty, or an item of a List."""

    object: Object
    kind: Kind
    source: Source
    loc: Loc = ()

    def told(self, field: Loc, sentence: str) -> str:
        """`file:line: path: sentence` for a field of this object."""
        return self.source.told(Mistake((*self.loc, *field), sentence))


def load_manifests(files: Sequence[Path]) -> list[Manifest]:
    """Every object of the files, in order; BadInput lists all mistakes of all of them."""
    manifests: list[Manifest] = []
    mistakes: list[str] = []
    for file in files:
        try:
            for document in read(file):
                found = list(_mistakes(document.value, ()))
                mistakes += [document.source.told(mistake) for mistake in found]
                manifests += [] if found else _objects(document)
        except BadInput as error:
            mistakes.append(str(error))
    mistakes += _doubles(manifests)
    if mistakes:
        raise BadInput(joined(mistakes))
    return manifests


def _objects(document: Document) -> Iterator[Manifest]:
    if not _is_list(document.value):
        yield Manifest(document.value, kind_of(document.value), document.source)
        return
    for index, item in enumerate(document.value.get("items") or []):
        yield Manifest(item, kind_of(item), document.source, ("items", index))


def _is_list(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("apiVersion") == "v1" and value.get("kind") == "List"


def _mistakes(value: Any, loc: Loc) -> Iterator[Mistake]:
    if not isinstance(value, Mapping):
        yield Mistake(loc, f"a Kubernetes object is a mapping with apiVersion, kind and metadata; this is {value!r}")
        return
    if _is_list(value):
        for index, item in enumerate(value.get("items") or []):
            yield from _mistakes(item, (*loc, "items", index))
        return
    yield from _kind_mistakes(value, loc)
    yield from _shape_mistakes(value, loc)


def _kind_mistakes(value: Mapping[str, Any], loc: Loc) -> Iterator[Mistake]:
    if missing := [field for field in ("apiVersion", "kind") if not value.get(field)]:
        yield Mistake(loc, f"{' and '.join(missing)} must be given, as in apiVersion: v1, kind: Pod")
        return
    if value["apiVersion"] == "testbed/v1":
        sentence = "is no Kubernetes manifest: `testbed up` takes topologies, and `testbed compare` comparisons"
        yield Mistake((*loc, "apiVersion"), sentence)
        return
    try:
        kind_of(value)
    except BadRequest as error:
        yield Mistake((*loc, "kind"), f"{error}{_served_hint(str(value['kind']))}")


def _served_hint(wanted: str) -> str:
    served = {kind.kind: kind.api_version for kind in KINDS}
    close = difflib.get_close_matches(wanted, served, n=1)
    if close:
        return f"; did you mean {close[0]} in {served[close[0]]}?"
    return f"; served are {', '.join(served)}"


_SHAPES: Mapping[Loc, tuple[type, str]] = {
    ("metadata",): (dict, "a mapping (key: value)"),
    ("metadata", "name"): (str, "text; put it in quotes"),
    ("metadata", "namespace"): (str, "text; put it in quotes"),
    ("metadata", "labels"): (dict, "a mapping (key: value)"),
    ("metadata", "annotations"): (dict, "a mapping (key: value)"),
    ("spec",): (dict, "a mapping (key: value)"),
}


def _shape_mistakes(value: Mapping[str, Any], loc: Loc) -> Iterator[Mistake]:
    for path, (shape, words) in _SHAPES.items():
        there = _at(value, path)
        if there is not None and not isinstance(there, shape):
            yield Mistake((*loc, *path), f"is {there!r}, and must be {words}")
    for texts in (("metadata", "labels"), ("metadata", "annotations")):
        pairs = _at(value, texts)
        for key, text in pairs.items() if isinstance(pairs, Mapping) else ():
            if not isinstance(text, str):
                yield Mistake((*loc, *texts, key), f"is {text!r}, and must be text; put it in quotes")
    if not _at(value, ("metadata", "name")):
        if _at(value, ("metadata", "generateName")):
            sentence = "an object of a manifest needs a name of its own, so that it can be found again; give a name"
            yield Mistake((*loc, "metadata", "generateName"), sentence)
        else:
            yield Mistake((*loc, "metadata", "name"), "is missing; it has to be given")


def _at(value: Any, path: Loc) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _doubles(manifests: Sequence[Manifest]) -> list[str]:
    """Two objects of one kind, namespace and name: the second would silently replace the first."""
    first: dict[tuple[Kind, str, str], Manifest] = {}
    mistakes = []
    for manifest in manifests:
        meta = manifest.object["metadata"]
        identity = (manifest.kind, meta.get("namespace") or "default", meta["name"])
        other = first.setdefault(identity, manifest)
        if other is not manifest:
            where = f"{other.source.file}:{other.source.line(other.loc)}"
            sentence = f"{manifest.kind.kind} {meta['name']} stands in {where} already; keep one"
            mistakes.append(manifest.told(("metadata", "name"), sentence))
    return mistakes
