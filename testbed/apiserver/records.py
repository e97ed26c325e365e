"""What the store is made of: versions of objects, and the changes from one to the next."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from testbed.api.kinds import Kind
from testbed.api.objects import Key, Object
from testbed.errors import BadRequest

ADDED, MODIFIED, DELETED, BOOKMARK = "ADDED", "MODIFIED", "DELETED", "BOOKMARK"


class Record:
    """One version of an object: its JSON as it travels, and its document, which is made when somebody asks."""

    __slots__ = ("_document", "_is_superseded", "raw", "version")

    def __init__(self, raw: bytes, version: int, document: Object | None = None) -> None:
        self.raw = raw
        self.version = version
        self._document = document
        self._is_superseded = False

    @property
    def document(self) -> Object:
        """The one shared document. Whoever reads it must not change it; `copy` is for that."""
        if self._document is not None:
            return self._document
        document = self.copy()
        if not self._is_superseded:
            self._document = document
        return document

    def copy(self) -> Object:
        """A document of the caller's own."""
        copied: Object = orjson.loads(self.raw)
        return copied

    def supersede(self) -> None:
        """Keep only the JSON from now on: a former version is rarely looked into, and its document is five times as
        large."""
        self._document, self._is_superseded = None, True


@dataclass(frozen=True, slots=True)
class Change:
    """One write. A deletion has a version of its own, and `new` is then the object's last state under it."""

    version: int
    type: str
    kind: Kind
    key: Key
    new: Record
    old: Record | None

    def departed(self) -> Record:
        """The state before, under this change's version: what a watch is told when an object leaves its selector."""
        assert self.old is not None, "only an object that was selected can leave"
        return renumbered(self.old.copy(), self.version)


def renumbered(obj: Object, version: int) -> Record:
    """The record of `obj` (which the record takes over) as of `version`; BadRequest where JSON cannot hold it."""
    obj["metadata"]["resourceVersion"] = str(version)
    try:
        return Record(orjson.dumps(obj), version, obj)
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"the object cannot be stored: {error}") from error
