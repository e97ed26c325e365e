"""A conversation with a program inside a pod: JSON lines over the API's exec stream."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from testbed.client.http import HttpClient
from testbed.client.streams import Channel
from testbed.compare.workloads import CONTAINER, NAMESPACE
from testbed.errors import CommandFailed, TimedOut
from testbed.loadgen.records import to_line

log = logging.getLogger(__name__)

_KEPT_STDERR = 20


class Refused(CommandFailed):
    """The program understood, and said why it cannot."""


class Stream(Protocol):
    """What a session needs of `client.streams.ExecStream`."""

    @property
    def exit_code(self) -> int | None:
        """Of the program, once it has ended."""
        ...

    def __aiter__(self) -> AsyncIterator[tuple[Channel, bytes]]:
        """What it writes."""
        ...

    async def send(self, data: bytes) -> None:
        """Write to its standard input."""
        ...


class Session:
    """One running program; `ask` is a question and its answer, one at a time."""

    def __init__(self, stream: Stream, pod: str) -> None:
        self._stream, self._pod = stream, pod
        self._output = aiter(stream)
        self._rest = b""
        self._stderr: list[str] = []

    async def ask(self, operation: str, argument: Mapping[str, Any], timeout_s: float = 30.0) -> dict[str, Any]:
        """Send `{operation: argument}` and return the answer.

        Raises Refused with the program's own reason, TimedOut, and CommandFailed where it has ended.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._stream.send(to_line({operation: argument}).encode())
                answer: dict[str, Any] = json.loads(await self._line())
        except TimeoutError:
            raise TimedOut(f"pod {self._pod} did not answer {operation} within {timeout_s:g} s{self._said()}") from None
        if "error" in answer:
            raise Refused(f"pod {self._pod}: {answer['error']}")
        return answer

    async def _line(self) -> bytes:
        while b"\n" not in self._rest:
            try:
                channel, data = await anext(self._output)
            except StopAsyncIteration:
                code = self._stream.exit_code
                raise CommandFailed(f"the program in pod {self._pod} ended with {code}{self._said()}") from None
            if channel == Channel.STDOUT:
                self._rest += data
            else:
                self._note(data.decode(errors="replace"))
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def _note(self, text: str) -> None:
        log.debug("%s: %s", self._pod, text.rstrip())
        self._stderr = [*self._stderr, *text.splitlines()][-_KEPT_STDERR:]

    def _said(self) -> str:
        return f" and said: {' | '.join(self._stderr)}" if self._stderr else ""


@asynccontextmanager
async def session(client: HttpClient, pod: str, argv: Sequence[str]) -> AsyncIterator[Session]:
    """Run `argv` in the pod until the block ends."""
    async with client.exec(NAMESPACE, pod, argv, container=CONTAINER, stdin=_silence()) as stream:
        yield Session(stream, pod)


async def _silence() -> AsyncIterator[bytes]:
    """Keeps standard input open, until the stream is left; what is asked is sent by `Session.ask`."""
    await asyncio.Event().wait()
    yield b""
