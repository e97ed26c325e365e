"""Every client there is, each over a fresh cluster, for tests that must hold for all of them."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

from testbed.apiserver.auth import BearerToken
from testbed.apiserver.http import ApiServer
from testbed.apiserver.local import LocalClient
from testbed.apiserver.resources import Resources
from testbed.apiserver.serving import Listeners, bound, tls_context
from testbed.client.fake import FakeClient
from testbed.client.http import HttpClient
from testbed.client.protocol import Client
from testbed.errors import AlreadyExists
from testbed.runtime.bootstrap import write_bootstrap
from tests.unit.apiserver.parts import SPEC, TOKEN, opened

NAMESPACES = ("default", "kube-system", "kube-node-lease")


@asynccontextmanager
async def fake() -> AsyncIterator[Client]:
    """In memory."""
    yield await _with_namespaces(FakeClient())


@asynccontextmanager
async def local() -> AsyncIterator[Client]:
    """Over the store and its admission, as the control plane's own controllers are."""
    with tempfile.TemporaryDirectory() as directory:
        async with opened(Path(directory)) as resources:
            yield await _with_namespaces(LocalClient(resources))


@asynccontextmanager
async def http() -> AsyncIterator[Client]:
    """Over a Unix socket, to a server in the same loop."""
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "api.sock"
        async with opened(Path(directory)) as resources, _serving(resources) as listeners:
            await listeners.listen_unix(socket)
            async with HttpClient(f"unix://{socket}", TOKEN) as client:
                yield await _with_namespaces(client)


@asynccontextmanager
async def https() -> AsyncIterator[Client]:
    """Over TLS on the loopback, as from another machine."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        write_bootstrap(path, SPEC)
        listener = bound("127.0.0.1", 0)
        async with opened(path) as resources, _serving(resources) as listeners:
            await listeners.listen_tls(listener, tls_context(path / "apiserver.crt", path / "apiserver.key"))
            url = f"https://127.0.0.1:{listener.getsockname()[1]}"
            async with HttpClient(url, TOKEN, (path / "ca.crt").read_bytes()) as client:
                yield await _with_namespaces(client)


CLIENTS: dict[str, Callable[[], AbstractAsyncContextManager[Client]]] = {
    "fake": fake,
    "local": local,
    "http": http,
    "https": https,
}


@asynccontextmanager
async def _serving(resources: Resources) -> AsyncIterator[Listeners]:
    no_agents = None
    listeners = Listeners(ApiServer(resources, BearerToken(TOKEN), no_agents))  # type: ignore[arg-type]
    try:
        yield listeners
    finally:
        resources.store.close_watches()
        await listeners.close()


async def _with_namespaces(client: Client) -> Client:
    for name in NAMESPACES:
        with suppress(AlreadyExists):
            await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return client
