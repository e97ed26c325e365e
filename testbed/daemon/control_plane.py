"""The control plane: store, API server and controllers in one process.

It serves plain HTTP on a Unix socket, TLS on a loopback socket that it is given (so that it can be bound in another
network namespace), and TLS on the underlay. It may be killed at any instruction; started again, it goes on from disk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from testbed.api.kinds import CONFIG_MAP, NAMESPACE, Kind, kind_of
from testbed.api.objects import Object
from testbed.api.wellknown import (
    API_PORT,
    CLUSTER_CONFIG_MAP,
    LEASE_NAMESPACE,
    SYSTEM_NAMESPACE,
)
from testbed.apiserver.agents import Agents
from testbed.apiserver.auth import BearerToken
from testbed.apiserver.expiry import EventExpiry
from testbed.apiserver.http import ApiServer
from testbed.apiserver.local import LocalClient
from testbed.apiserver.resources import Resources
from testbed.apiserver.serving import Listeners, bound, quiet_uvicorn, tls_context
from testbed.apiserver.store import Store
from testbed.errors import AlreadyExists, TestbedError
from testbed.topology.kubernetes import kubernetes_objects
from testbed.topology.spec import ClusterSpec

log = logging.getLogger(__name__)

NAMESPACES = ("default", SYSTEM_NAMESPACE, LEASE_NAMESPACE, "kube-public")


@dataclass(frozen=True)
class Options:
    """How the control plane was started."""

    directory: Path
    """The bootstrap directory."""
    data: Path
    socket: Path | None
    socket_fd: int | None
    listen_fd: int | None
    port: int


def main(argv: list[str]) -> None:
    """Serve until SIGTERM or SIGINT. What makes that impossible is one line of the log, and the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    quiet_uvicorn()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(_options(argv)))
    except TestbedError as error:
        log.critical("%s", error)
        raise SystemExit(error.exit_code) from error


async def serve(options: Options) -> None:
    """The whole control plane, from opening the store to closing it."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _resources(options) as resources, _listening(options, resources):
        _settle_memory()
        controllers = asyncio.create_task(_control(LocalClient(resources)))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([controllers, stopped], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        stopped.cancel()
        controllers.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await controllers  # raises what ended them, if that was not us


@asynccontextmanager
async def _resources(options: Options) -> AsyncIterator[Resources]:
    """The verbs over the store, with what every cluster has."""
    spec = ClusterSpec.from_json(json.loads((options.directory / "spec.json").read_text()))
    store = Store.open(options.data / "store.db")
    try:
        resources = Resources(store, spec.services)
        await bootstrap(resources, spec)
        await resources.resume()
        expiry = EventExpiry(resources)
        expiry.start()
        try:
            yield resources
        finally:
            expiry.stop()
    finally:
        store.close()


@asynccontextmanager
async def _listening(options: Options, resources: Resources) -> AsyncIterator[None]:
    """All listeners, from the first to the last request."""
    token = (options.directory / "token").read_text().strip()
    agents = Agents(ssl.create_default_context(cafile=str(options.directory / "ca.crt")), token)
    listeners = Listeners(ApiServer(resources, BearerToken(token), agents))
    tls = tls_context(options.directory / "apiserver.crt", options.directory / "apiserver.key")
    try:
        if options.listen_fd is not None:
            await listeners.listen_tls(socket.socket(fileno=options.listen_fd), tls)
        await listeners.listen_tls(bound("0.0.0.0", options.port), tls)  # noqa: S104  its own namespace
        if options.socket is not None:
            await listeners.listen_unix(options.socket)  # last: whoever waits for it finds the others too
        if options.socket_fd is not None:
            await listeners.listen_plain(socket.socket(fileno=options.socket_fd))
        yield
    finally:
        resources.store.close_watches()
        await listeners.close()


def _settle_memory() -> None:
    """Spare the garbage collector what lives for ever; a full collection over 20,000 objects stops us for 0.1 s."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def bootstrap(resources: Resources, spec: ClusterSpec) -> None:
    """Make what every cluster has from its first moment, where it is missing."""
    for obj in first_objects(spec):
        with contextlib.suppress(AlreadyExists):
            await resources.create(kind_of(obj), obj["metadata"].get("namespace", ""), obj)


def first_objects(spec: ClusterSpec) -> Iterator[Object]:
    """Namespaces, the cluster's specification, and the Service of the API server itself with its endpoint."""
    for name in NAMESPACES:
        yield _object(NAMESPACE, {"name": name})
    settings = {"name": CLUSTER_CONFIG_MAP, "namespace": SYSTEM_NAMESPACE}
    yield _object(CONFIG_MAP, settings, data={"spec.json": json.dumps(spec.to_json())})
    yield from kubernetes_objects(spec)


def _object(kind: Kind, meta: Mapping[str, Any], **fields: Any) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": dict(meta), **fields}


async def _control(client: LocalClient) -> None:
    from testbed.controllers.loops import run_controllers  # after the listeners, for which others wait

    await run_controllers(client)


def _options(argv: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="testbed.daemon control-plane", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="bootstrap directory: spec.json, token, certificates")
    parser.add_argument("--data", type=Path, required=True, help="directory of store.db")
    parser.add_argument("--socket", type=Path, help="serve plain HTTP on this Unix socket")
    parser.add_argument("--socket-fd", type=int, metavar="N", help="serve plain HTTP on this inherited Unix socket")
    parser.add_argument("--listen-fd", type=int, metavar="N", help="serve TLS on this inherited, bound TCP socket")
    parser.add_argument("--port", type=int, default=API_PORT, help="serve TLS on this port of every address")
    given = parser.parse_args(argv)
    return Options(given.dir, given.data, given.socket, given.socket_fd, given.listen_fd, given.port)
