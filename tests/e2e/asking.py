"""Python run inside pods by exec, and what it answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from testbed.client.http import HttpClient
from testbed.client.streams import Channel, ExecStream

Answer = dict[str, Any]
Question = tuple[str, dict[str, Any]]
"""A function of inpod.py and its arguments."""
INPOD = Path(__file__).with_name("inpod.py")


def evaluate(client: HttpClient, namespace: str, pod: str, script: Path, expression: str, container: str) -> ExecStream:
    """`python3 -` in a container: it reads the script, and prints the value of an expression as JSON."""
    text = f"{script.read_text()}\nimport json\nprint(json.dumps({expression}))\n"
    return client.exec(namespace, pod, ["python3", "-"], container=container, stdin=_once(text))


async def value(program: ExecStream, looking: asyncio.Event | None = None) -> Any:
    """What the program printed last; AssertionError with what it said if it failed.

    `looking` is set when it prints anything: a script that takes its time says so when it has begun.
    """
    written: dict[Channel, bytes] = {Channel.STDOUT: b"", Channel.STDERR: b""}
    try:
        async for channel, data in program:
            written[channel] += data
            if looking:
                looking.set()
    finally:
        if looking:
            looking.set()
    assert program.exit_code == 0, (
        f"the program in the pod ended with {program.exit_code}: {written[Channel.STDERR].decode()[-2000:]}"
    )
    return json.loads(written[Channel.STDOUT].splitlines()[-1])


async def ask(
    client: HttpClient, namespace: str, pod: str, questions: Sequence[Question], *, container: str = ""
) -> list[Answer]:
    """Questions of inpod.py, asked from inside a pod, one after the other, in one go."""
    calls = ", ".join(f"ask({question!r}, **{details!r})" for question, details in questions)
    async with evaluate(client, namespace, pod, INPOD, f"[{calls}]", container) as program:
        answers: list[Answer] = await value(program)
    return answers


async def _once(text: str) -> AsyncIterator[bytes]:
    yield text.encode()
