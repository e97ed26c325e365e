"""Knot DNS's control socket, spoken directly: a `knotc` for each record would cost milliseconds, this costs 20 µs.

A message is a row of units, each a type byte and items (code, length, text); BLOCK ends a question as well as its
answer. Questions are sent some ahead of their answers, but not all: knotd writes each answer before it reads on, and
who never reads ends up waiting for a server that waits for him. knotd serves one client at a time, and hangs up on one
that is silent for 5 s: connect, speak, close.
Source: Knot DNS 3.2, src/libknot/control/control.c.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from enum import IntEnum
from pathlib import Path

from testbed.errors import CommandFailed, ServiceUnavailable

AHEAD = 64
"""How many questions may be without an answer: what the socket's buffer surely holds of either."""
TIMEOUT_S = 10.0
"""Without a word. knotd serves another client, a person's `knotc`, for as long as that one speaks."""

_END, _DATA, _EXTRA, _BLOCK = 0, 1, 2, 3
_FIRST_ITEM = 16


class Item(IntEnum):
    """What a unit may carry (libknot/control/control.h, knot_ctl_idx_t)."""

    CMD = 0
    FLAGS = 1
    ERROR = 2
    SECTION = 3
    ITEM = 4
    ID = 5
    ZONE = 6
    OWNER = 7
    TTL = 8
    TYPE = 9
    DATA = 10


Unit = Mapping[int, str]


class KnotRefused(CommandFailed):
    """knotd understood a command and did not do it; the message is its own."""


class Control:
    """One connection. Every method raises ServiceUnavailable where knotd does not answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._held, self._at = b"", 0

    async def ask(self, command: str, zone: str, **items: str) -> list[Unit]:
        """One command, and the units of its answer. KnotRefused."""
        (answer,) = await self.ask_all([question(command, zone, **items)])
        for refusal in refusals(answer):
            raise KnotRefused(refusal)
        return answer

    async def ask_all(self, questions: Sequence[bytes]) -> list[list[Unit]]:
        """Many commands, each done or not whatever becomes of the others, and their answers in the same order."""
        answers: list[list[Unit]] = []
        try:
            for start in range(0, len(questions), AHEAD):
                ahead = questions[start : start + AHEAD]
                self._writer.write(b"".join(ahead))
                answers += [await self._answer() for _ in ahead]
        except (OSError, EOFError, TimeoutError) as error:
            raise ServiceUnavailable(f"knotd hung up: {error!r}") from error
        return answers

    async def _answer(self) -> list[Unit]:
        units: list[dict[int, str]] = []
        while (code := (await self._take(1))[0]) not in (_BLOCK, _END):
            if code in (_DATA, _EXTRA):
                units.append({})
            else:
                length = int.from_bytes(await self._take(2))
                units[-1][code - _FIRST_ITEM] = (await self._take(length)).decode()
        return list(units)

    async def _take(self, length: int) -> bytes:
        """The next bytes. A zone is 200,000 of these, and a StreamReader would move all that follows each time."""
        while len(self._held) - self._at < length:
            async with asyncio.timeout(TIMEOUT_S):
                more = await self._reader.read(1 << 18)
            if not more:
                raise EOFError
            self._held, self._at = self._held[self._at :] + more, 0
        self._at += length
        return self._held[self._at - length : self._at]


@asynccontextmanager
async def connected(socket: Path) -> AsyncIterator[Control]:
    """Speak to the knotd of that socket. ServiceUnavailable where nobody listens."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError as error:
        raise ServiceUnavailable(f"knotd does not listen at {socket}: {error.strerror}") from error
    try:
        yield Control(reader, writer)
    finally:
        with suppress(OSError):
            writer.write(bytes((_END,)))
        writer.close()


def refusals(answer: Iterable[Unit]) -> Iterator[str]:
    """What knotd did not do, and why, a sentence each."""
    for unit in answer:
        if Item.ERROR in unit:
            told = (Item.CMD, Item.ZONE, Item.OWNER, Item.TYPE, Item.DATA)
            yield f"knotd: {' '.join(unit[item] for item in told if item in unit)}: {unit[Item.ERROR]}"


def question(command: str, zone: str, **items: str) -> bytes:
    """A command about a zone as it is sent; `items` are named after Item, in lower case."""
    fields = {Item.CMD: command, Item.ZONE: zone} | {Item[name.upper()]: text for name, text in items.items()}
    parts = [bytes((_DATA,))]
    for item, text in sorted(fields.items()):
        encoded = text.encode()
        parts.append(struct.pack("!BH", _FIRST_ITEM + item, len(encoded)) + encoded)
    return b"".join((*parts, bytes((_BLOCK,))))
