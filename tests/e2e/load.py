"""Load that shows disturbances: long connections and ever new ones to a Service, in pods of the namespace `default`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from testbed.api.kinds import NODE, POD, SERVICE
from testbed.api.objects import Object, is_ready, name, spec, status
from testbed.client.http import HttpClient
from testbed.errors import ApiError
from testbed.waiting import wait_until_async
from tests.conformance import manifests
from tests.conformance.manifests import Port, node_port
from tests.e2e.asking import ask

ECHO = 7000
READY_S = 60.0
RETRANSMITTED_MS = 900
"""Who waits for so long has lost a packet: TCP sends the first one again after a second (RFC 6298)."""


@dataclass(frozen=True)
class Echo:
    """The Service that is under load, and its doors by name: address and port."""

    service: Object
    doors: Mapping[str, tuple[str, int]]

    def pods(self) -> list[str]:
        """Everybody who talks or knocks."""
        return [f"{role}-{door}" for role in ("talk", "knock") for door in self.doors]


@asynccontextmanager
async def load(client: HttpClient, *, through_node_port: bool = False) -> AsyncIterator[Echo]:
    """Load from node a to a server on node b, before, during and after the body; nothing of it may fail.

    Through the ClusterIP, and where asked through a node port of node a as well.
    """
    echo = await _serve(client, through_node_port=through_node_port)
    for door in echo.doors.values():
        await reachable(client, "probe", door)
    loads = [
        manifests.stream(f"{role}-{which}", "a", role, host, str(port))
        for role in ("talk", "knock")
        for which, (host, port) in echo.doors.items()
    ]
    await asyncio.gather(*(run_pod(client, each) for each in loads))
    await expect_progress(client, echo)
    yield echo
    await expect_progress(client, echo)
    for pod in (*echo.pods(), "echo", "probe"):
        await client.delete(POD, pod, "default", grace_period_s=0)
    await client.delete(SERVICE, "echo", "default")


async def expect_progress(client: HttpClient, echo: Echo) -> None:
    """All of the load goes on, and none of it has ever been disturbed."""
    for pod in echo.pods():
        before = await printed(client, pod)

        async def check(pod: str = pod, before: list[str] = before) -> bool:
            return len(await printed(client, pod)) > len(before) + 1

        await wait_until_async(check, READY_S, f"more lines from the pod {pod}", every_s=0.1)


async def longest_waits_ms(client: HttpClient, echo: Echo) -> dict[str, int]:
    """For how long each part of the load ever waited for an answer."""
    lines = {pod: await printed(client, pod) for pod in echo.pods()}
    return {pod: max(int(line.split()[1]) for line in said) for pod, said in lines.items()}


async def printed(client: HttpClient, pod: str) -> list[str]:
    """The lines of a load; none while logs cannot be had. AssertionError with its last words if it broke."""
    with suppress(ApiError):
        text = b"".join([chunk async for chunk in client.logs("default", pod)]).decode()
        assert "BROKEN" not in text, f"the load {pod} was disturbed: {text.splitlines()[-1]}"
        return text.splitlines()
    return []


async def run_pod(client: HttpClient, pod: Object) -> None:
    """Create a pod and wait until it is Ready."""
    await client.create(in_default(pod))

    async def check() -> bool:
        with suppress(ApiError):
            return is_ready(await client.get(POD, name(pod), "default"))
        return False

    await wait_until_async(check, READY_S, f"readiness of pod {name(pod)}", every_s=0.05)


async def reachable(client: HttpClient, pod: str, door: tuple[str, int]) -> None:
    """Until the Service's rules are on the pod's node."""
    host, port = door

    async def check() -> bool:
        (answer,) = await ask(client, "default", pod, [("tcp", {"host": host, "port": port})])
        return bool(answer["outcome"] == "OK")

    await wait_until_async(check, READY_S, f"an answer from {host}:{port}", every_s=0.05)


def in_default(obj: Object) -> Object:
    """The same object, in the namespace `default`."""
    return {**obj, "metadata": {**obj["metadata"], "namespace": "default"}}


async def _serve(client: HttpClient, *, through_node_port: bool) -> Echo:
    fields = {"type": "NodePort"} if through_node_port else {}
    service = await client.create(in_default(manifests.service("echo", {"pod": "echo"}, Port(ECHO), **fields)))
    await asyncio.gather(
        run_pod(client, manifests.stream("echo", "b", "serve", str(ECHO))),
        run_pod(client, manifests.idle("probe", "a")),
    )
    doors = {"cluster-ip": (str(spec(service)["clusterIP"]), ECHO)}
    if through_node_port:
        doors["node-port"] = (await _address_of(client, "a"), node_port(service))
    return Echo(service, doors)


async def _address_of(client: HttpClient, node: str) -> str:
    addresses = status(await client.get(NODE, node))["addresses"]
    return next(str(address["address"]) for address in addresses if address["type"] == "InternalIP")
