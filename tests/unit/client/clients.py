"""Every client there is, each over a fresh cluster, for tests that must hold for all of them."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from testbed.apiserver.local import LocalClient
from testbed.apiserver.resources import Resources
from testbed.apiserver.store import Store
from testbed.client.fake import FakeClient
from testbed.client.protocol import Client
from testbed.topology.spec import ServicesSpec

SERVICES = ServicesSpec(
    "nftables", IPv4Network("10.96.0.0/16"), IPv4Address("10.96.0.1"), IPv4Address("10.96.0.10"), None
)
NAMESPACES = ("default", "kube-system", "kube-node-lease")


@asynccontextmanager
async def fake() -> AsyncIterator[Client]:
    """In memory."""
    client = FakeClient()
    await _create_namespaces(client)
    yield client


@asynccontextmanager
async def local() -> AsyncIterator[Client]:
    """Over the store and its admission, as the control plane's own controllers are."""
    with tempfile.TemporaryDirectory() as directory:
        store = Store.open(Path(directory) / "store.db")
        client = LocalClient(Resources(store, SERVICES))
        await _create_namespaces(client)
        try:
            yield client
        finally:
            store.close()


CLIENTS: dict[str, Callable[[], AbstractAsyncContextManager[Client]]] = {"fake": fake, "local": local}


async def _create_namespaces(client: Client) -> None:
    for name in NAMESPACES:
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
