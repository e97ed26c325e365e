"""A program in a pod, attached to this terminal: bytes, window size and exit code pass through unchanged."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import termios
import threading
import tty as terminal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.api.objects import Key
    from testbed.client.http import HttpClient
    from testbed.client.streams import ExecStream

CHUNK = 32 * 1024


async def run_attached(
    client: HttpClient, pod: Key, argv: Sequence[str], *, container: str, tty: bool, stdin: bool
) -> int:
    """Run `argv` in the pod to its end and return its exit code."""
    from testbed.client.streams import Channel

    outputs = {Channel.STDOUT: sys.stdout.buffer, Channel.STDERR: sys.stderr.buffer}
    source = _standard_input() if stdin else None
    async with client.exec(*pod, argv, container=container, stdin=source, tty=tty) as program:
        with _raw_terminal(program, is_wanted=tty and sys.stdin.isatty()):
            async for channel, data in program:
                outputs[channel].write(data)
                outputs[channel].flush()
    assert program.exit_code is not None, "the stream ends with an exit code or raises"
    return program.exit_code


@contextmanager
def _raw_terminal(program: ExecStream, *, is_wanted: bool) -> Iterator[None]:
    """Every key goes to the program, Ctrl-C too, and it learns of each new window size."""
    if not is_wanted:
        yield
        return
    loop = asyncio.get_running_loop()
    resizes: set[asyncio.Task[None]] = set()

    def resize() -> None:
        size = shutil.get_terminal_size()
        task = loop.create_task(program.resize(size.columns, size.lines))
        resizes.add(task)
        task.add_done_callback(resizes.discard)

    before = termios.tcgetattr(sys.stdin)
    try:
        terminal.setraw(sys.stdin)
        loop.add_signal_handler(signal.SIGWINCH, resize)
        resize()
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


async def _standard_input() -> AsyncIterator[bytes]:
    """Standard input as it arrives, whatever it is: a read of a terminal or pipe cannot be cancelled, a thread may
    be left behind in it."""
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        while not loop.is_closed():
            try:
                chunk = os.read(sys.stdin.fileno(), CHUNK)
            except OSError:
                chunk = b""
            try:
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            except RuntimeError:  # the program has ended, and the loop with it
                return
            if not chunk:
                return

    threading.Thread(target=read, daemon=True).start()
    while chunk := await chunks.get():
        yield chunk
