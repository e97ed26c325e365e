"""The only place that reads YAML: files become models and objects, and every mistake of a file is told at once.

A YAML document is read by the safe loader, with the line of every key. A model (pydantic) then says what is wrong
with the values; its findings are put into our words and back onto those lines.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import yaml

from testbed.errors import BadInput
from testbed.topology.source import Loc, Mistake, Source

if TYPE_CHECKING:
    from pydantic import BaseModel

    from testbed.topology.schema import Topology

M = TypeVar("M", bound="BaseModel")


@dataclass(frozen=True)
class Document:
    """One YAML document as plain values, and where each of them was written."""

    value: Any
    source: Source


@dataclass(frozen=True)
class Loaded(Generic[M]):
    """A file that was understood: the model, and the document it was made from."""

    model: M
    document: Document
    file: Path

    @property
    def source(self) -> Source:
        """Where it was written."""
        return self.document.source


def load(file: Path, model: type[M]) -> Loaded[M]:
    """Read the one document of `file` as a `model`; BadInput lists every mistake, a line each."""
    documents = read(file)
    if len(documents) != 1:
        raise BadInput(f"{file}: holds {len(documents)} YAML documents; exactly one is expected")
    return Loaded(parse(documents[0], model), documents[0], file)


def load_topology(file: Path, settings: Mapping[str, Any] | None = None, name: str = "") -> Loaded[Topology]:
    """A topology, changed by `settings` (see `changed`) and under another `name`; both are checked like the file."""
    from testbed.topology.schema import Topology  # pydantic costs 60 ms: only who needs it pays

    loaded = load(file, Topology)
    if not settings and not name:
        return loaded
    document = changed(loaded.document, settings or {})
    if name:
        document.value["metadata"]["name"] = name
    return Loaded(parse(document, Topology), document, file)


def parse(document: Document, model: type[M]) -> M:
    """The document as a `model`; BadInput lists every mistake, a line each."""
    from testbed.topology.findings import mistakes_of  # with pydantic, see above

    found = mistakes_of(document.value, model)
    if isinstance(found, list):
        raise document.source.bad_input(found)
    return found


def changed(document: Document, settings: Mapping[str, Any]) -> Document:
    """A copy with values of `spec` replaced: `{"network.backend": "host-gw"}`. The caller parses it again."""
    value = deepcopy(document.value)
    for path, setting in settings.items():
        steps = path.split(".")
        place = value.setdefault("spec", {})
        for step in steps[:-1]:
            place = place.setdefault(step, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise BadInput(f"{document.source.file}: set {path}: there is nothing of that name to change in spec")
        place[steps[-1]] = setting
    return replace(document, value=value)


def scalar(text: str) -> Any:
    """One value as it would stand in a file: `1400` is a number, `true` a boolean, `host-gw` text."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise BadInput(f"{text!r} is no YAML value: {error}") from None


def read(file: Path) -> list[Document]:
    """Every document of a YAML file, empty ones left out; BadInput for a file that is no YAML."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{file}: is not a text file (UTF-8)") from None
    try:
        return list(_documents(str(file), text))
    except yaml.YAMLError as error:
        raise BadInput(_syntax_mistake(str(file), error)) from None


def _documents(file: str, text: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node() and (node := loader.get_node()):
            mistakes: list[Mistake] = []
            lines: dict[Loc, int] = {}
            _survey(node, (), lines, mistakes, frozenset())
            source = Source(file, lines)
            if mistakes:
                raise source.bad_input(mistakes)
            value = loader.construct_document(node)
            if value is not None:
                yield Document(value, source)
    finally:
        loader.dispose()


class _Loader(yaml.CSafeLoader):
    """The safe loader with JSON's values only: what looks like a date stays the text that it is."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _survey(node: yaml.Node, loc: Loc, lines: dict[Loc, int], mistakes: list[Mistake], around: frozenset[int]) -> None:
    """Note the line of everything below `node`; duplicate keys, odd keys and self-references are mistakes."""
    lines.setdefault(loc, node.start_mark.line + 1)
    if id(node) in around:
        mistakes.append(Mistake(loc, "refers to itself; write the value out"))
        return
    around |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _survey(item, (*loc, index), lines, mistakes, around)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*loc, str(key.value) if isinstance(key.value, Hashable) else "?")
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (_STRING, _MERGE):
                lines.setdefault(here, key.start_mark.line + 1)
                mistakes.append(Mistake(here, "is a key that is no string; put it in quotes"))
            elif here in lines:
                first, line = lines[here], key.start_mark.line + 1
                mistakes.append(Mistake(here, f"stands twice, in lines {first} and {line}; keep one"))
            lines.setdefault(here, key.start_mark.line + 1)
            _survey(value, here, lines, mistakes, around)


_STRING = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"


def _syntax_mistake(file: str, error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return f"{file}:{error.problem_mark.line + 1}: is not valid YAML: {what}"
    return f"{file}: is not valid YAML: {' '.join(str(error).split())}"
