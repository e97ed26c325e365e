"""Readiness probes, made from the node's namespace: the pod sees its node knocking, as with a kubelet.

The first one comes at once and is repeated quickly while the container is young, so that a pod is Ready within
milliseconds of its program; after that every periodSeconds.
Source: Kubernetes API reference, core/v1 Probe; "Configure Liveness, Readiness and Startup Probes".
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from testbed.kernel import netns

EAGER_S = 2.0
"""For so long after its start, a container that is not ready yet is asked again every `EAGER_PERIOD_S`."""
EAGER_PERIOD_S = 0.02

Probe = Callable[[], Awaitable[str]]
"""Asks once; the empty string is success, and anything else why not."""


@dataclass(frozen=True)
class Timing:
    """When and how often to ask."""

    initial_delay_s: float
    period_s: float
    timeout_s: float
    successes: int
    failures: int

    @classmethod
    def of(cls, probe: Mapping[str, Any]) -> "Timing":
        """As the manifest says it, with Kubernetes' defaults."""
        return cls(
            initial_delay_s=probe.get("initialDelaySeconds") or 0,
            period_s=probe.get("periodSeconds") or 10,
            timeout_s=probe.get("timeoutSeconds") or 1,
            successes=probe.get("successThreshold") or 1,
            failures=probe.get("failureThreshold") or 3,
        )


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
        sock = await loop.run_in_executor(self._thread, _tcp_socket)
        try:
            await loop.sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False)


async def keep_asking(probe: Probe, timing: Timing, tell: Callable[[bool, str], None], *, is_ready: bool) -> None:
    """Ask until cancelled. `tell` is told when readiness changes, and each failure of a container no longer young."""
    started = asyncio.get_running_loop().time()
    await asyncio.sleep(timing.initial_delay_s)
    streak = 0
    while True:
        reason = await _ask(probe, timing.timeout_s)
        is_young = not is_ready and asyncio.get_running_loop().time() - started < EAGER_S
        streak = streak + 1 if bool(reason) == is_ready else 0
        if streak >= (timing.failures if is_ready else timing.successes):
            is_ready, streak = not is_ready, 0
            tell(is_ready, reason)
        elif reason and not is_young:
            tell(is_ready, reason)
        await asyncio.sleep(EAGER_PERIOD_S if is_young and not is_ready else timing.period_s)


def http_probe(sockets: Sockets, address: str, port: int, action: Mapping[str, Any]) -> Probe:
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


def tcp_probe(sockets: Sockets, address: str, port: int) -> Probe:
    """tcpSocket: success is a connection."""

    async def ask() -> str:
        (await sockets.connect(address, port)).close()
        return ""

    return ask


def port_number(container: Mapping[str, Any], port: int | str) -> int:
    """A port given by number or by the name it has in the container. LookupError for an unknown name."""
    if isinstance(port, int):
        return port
    named = {entry.get("name"): entry["containerPort"] for entry in container.get("ports") or []}
    return int(named[port]) if port in named else int(port)


async def _ask(probe: Probe, timeout_s: float) -> str:
    try:
        async with asyncio.timeout(timeout_s):
            return await probe()
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    except (IndexError, ValueError):
        return "the answer is no HTTP"


def _enter(place: Path) -> None:
    with place.open("rb") as namespace:
        netns.setns(namespace.fileno(), netns.CLONE_NEWNET)


def _tcp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock


def _unverified() -> ssl.SSLContext:
    """As with a kubelet: a probe asks whether somebody answers, not who."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
