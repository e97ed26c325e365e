"""What a probe or a hook does: asks by HTTP or TCP from the node's namespace, or runs a program in the container.

The pod sees its node knocking, as with a kubelet.
Source: Kubernetes API reference, core/v1 Probe and LifecycleHandler.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Protocol

from testbed.errors import TestbedError
from testbed.kernel import netns

Action = Callable[[], Awaitable[str]]
"""Acts once; the empty string is success, and anything else why not."""
Execute = Callable[[str, Sequence[str]], Awaitable[int]]
"""Run a program in a container, by its id, to its end: the exit code. Cancelled, it ends the program. TestbedError."""


class Sockets(Protocol):
    """Opens connections from somewhere."""

    async def connect(self, address: str, port: int) -> socket.socket:
        """A TCP connection. OSError."""
        ...


class NodeSockets:
    """Sockets that belong to a node's network namespace, opened by a thread that lives in it."""

    def __init__(self, place: Path) -> None:
        self._thread: Executor = ThreadPoolExecutor(1, f"in-{place.name}", initializer=_enter, initargs=(place,))

    async def connect(self, address: str, port: int) -> socket.socket:
        """A TCP connection from the node. OSError."""
        loop = asyncio.get_running_loop()
        try:
            sock = await loop.run_in_executor(self._thread, _tcp_socket)
        except BrokenExecutor as error:  # it went before the thread could enter it
            raise OSError("the node's network namespace is gone") from error
        try:
            await loop.sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False)


@dataclass(frozen=True)
class Target:
    """The container that an action is about."""

    container_id: str
    container: Mapping[str, Any]
    """As its pod's manifest has it."""
    address: IPv4Address
    """The pod's."""


def action_of(handler: Mapping[str, Any], target: Target, sockets: Sockets, execute: Execute) -> Action:
    """What a handler says. A port that the container does not name is a failure, each time."""
    if action := handler.get("exec"):
        return exec_action(execute, target.container_id, action["command"])
    if action := handler.get("sleep"):
        return sleep_action(action["seconds"])
    action = handler.get("httpGet") or handler["tcpSocket"]
    address = action.get("host") or str(target.address)
    try:
        port = port_number(target.container, action["port"])
    except LookupError as error:
        return failing_action(str(error))
    return http_action(sockets, address, port, action) if "httpGet" in handler else tcp_action(sockets, address, port)


def http_action(sockets: Sockets, address: str, port: int, action: Mapping[str, Any]) -> Action:
    """httpGet: success is a status from 200 to 399."""
    headers = {"Host": f"{address}:{port}", "User-Agent": "testbed-probe", "Connection": "close"}
    headers |= {header["name"]: header["value"] for header in action.get("httpHeaders") or []}
    lines = [f"GET {action.get('path') or '/'} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    request = "\r\n".join([*lines, "", ""]).encode()
    tls = _unverified() if action.get("scheme") == "HTTPS" else None

    async def ask() -> str:
        sock = await sockets.connect(address, port)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=address if tls else None)
        try:
            writer.write(request)
            code = int((await reader.readline()).split()[1])
        finally:
            writer.close()
        return "" if 200 <= code < 400 else f"HTTP probe failed with status code {code}"

    return ask


def tcp_action(sockets: Sockets, address: str, port: int) -> Action:
    """tcpSocket: success is a connection."""

    async def ask() -> str:
        (await sockets.connect(address, port)).close()
        return ""

    return ask


def exec_action(execute: Execute, container_id: str, command: Sequence[str]) -> Action:
    """exec: success is the exit code 0."""

    async def ask() -> str:
        code = await execute(container_id, command)
        return f"{' '.join(command)} exited with {code}" if code else ""

    return ask


def sleep_action(seconds: float) -> Action:
    """sleep: a hook that only takes its time."""

    async def ask() -> str:
        await asyncio.sleep(seconds)
        return ""

    return ask


def failing_action(why: str) -> Action:
    """What cannot even be tried."""

    async def ask() -> str:
        return why

    return ask


async def act(action: Action, timeout_s: float) -> str:
    """Once, within that time: the empty string, or why it did not succeed."""
    try:
        async with asyncio.timeout(timeout_s):
            return await action()
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    except TestbedError as error:
        return str(error)
    except (IndexError, ValueError):
        return "the answer is no HTTP"


def port_number(container: Mapping[str, Any], port: int | str) -> int:
    """A port given by number or by the name it has in the container. LookupError for an unknown name."""
    if isinstance(port, int):
        return port
    named = {entry.get("name"): entry["containerPort"] for entry in container.get("ports") or []}
    if port not in named and not port.isdecimal():
        raise LookupError(f"container {container.get('name')} has no port named {port}")
    return int(named.get(port, port))


def _enter(place: Path) -> None:
    with place.open("rb") as namespace:
        netns.setns(namespace.fileno(), netns.CLONE_NEWNET)


def _tcp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock


@cache
def _unverified() -> ssl.SSLContext:
    """As with a kubelet: a probe asks whether somebody answers, not who."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
