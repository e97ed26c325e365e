"""Where in a file something was written, so that every mistake can be told as `file:line: path: sentence`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from testbed.errors import BadInput, joined

Loc = tuple[str | int, ...]
"""A place in a document: keys and list indices from its root."""


@dataclass(frozen=True)
class Mistake:
    """Something the user has to change: where, what is wrong, and what to do."""

    loc: Loc
    sentence: str


class Mistaken(BadInput):
    """Mistakes found where the file is not known; `Source.blamed` adds file and line."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__(joined([f"{dotted(mistake.loc)}: {mistake.sentence}" for mistake in self.mistakes]))


@dataclass(frozen=True)
class Source:
    """One document of one file. `lines` counts from 1, and holds every key and list item of the document."""

    file: str
    lines: Mapping[Loc, int] = field(default_factory=dict)

    def line(self, loc: Loc) -> int:
        """The line of that place, or of the nearest place around it that was written."""
        for length in range(len(loc), -1, -1):
            if line := self.lines.get(loc[:length]):
                return line
        return 1

    def told(self, mistake: Mistake) -> str:
        """`file:line: path: sentence`"""
        where = f"{self.file}:{self.line(mistake.loc)}"
        return ": ".join(part for part in (where, dotted(mistake.loc), mistake.sentence) if part)

    def bad_input(self, mistakes: Iterable[Mistake]) -> BadInput:
        """All of them as one error, in the order of their lines."""
        in_order = sorted(mistakes, key=lambda mistake: self.line(mistake.loc))
        return BadInput(joined([self.told(mistake) for mistake in in_order]))

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Mistakes raised inside are raised again with file and line."""
        try:
            yield
        except Mistaken as error:
            raise self.bad_input(error.mistakes) from None


def dotted(loc: Loc) -> str:
    """`spec.nodes[2].role`; a key with a dot in it stands in brackets: `metadata.labels["a.b/c"]`."""
    text = ""
    for step in loc:
        if isinstance(step, int):
            text += f"[{step}]"
        elif "." in step or "/" in step:
            text += f'["{step}"]'
        else:
            text += f".{step}" if text else step
    return text
