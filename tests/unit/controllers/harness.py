"""A cluster without machines: every controller, the API, and an agent that starts and stops pods on paper."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar

from testbed.api.kinds import ENDPOINT_SLICE, NODE, POD, Kind
from testbed.api.objects import Key, Object, is_deleting, is_ready, name, namespace, spec, status, uid
from testbed.api.wellknown import SERVICE_NAME_LABEL
from testbed.client.informer import Informer
from testbed.client.protocol import Client
from testbed.controllers.cluster import has_ended
from testbed.controllers.loops import run_controllers
from testbed.errors import Conflict, NotFound
from testbed.waiting import wait_until_async

T = TypeVar("T")
TRUE = {"status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}


class PaperAgent:
    """Gives every pod that is bound an address and lets it be ready; deletes those that should go."""

    def __init__(self, client: Client, *, makes_ready: bool = True) -> None:
        self._client, self._makes_ready = client, makes_ready
        self._pods = Informer(client, POD)
        self._addresses: Iterator[int] = itertools.count(2)
        self._changed: asyncio.Queue[Key] = asyncio.Queue()
        self._pods.on_change(self._changed.put_nowait)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pods.run())
            for _ in range(16):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            which = await self._changed.get()
            pod = self._pods.items.get(which)
            with suppress(NotFound, Conflict):
                if pod is not None and spec(pod).get("nodeName"):
                    await self._serve(pod)

    async def _serve(self, pod: Object) -> None:
        if is_deleting(pod):
            await self._client.delete(POD, name(pod), namespace(pod), grace_period_s=0, uid=uid(pod))
        elif not status(pod).get("podIP") and not has_ended(pod):
            await self.report(pod, ready=self._makes_ready)

    async def report(self, pod: Object, *, ready: bool) -> None:
        """The pod runs, and is ready or not."""
        number = next(self._addresses)
        await set_ready(self._client, pod, ready=ready, address=f"10.244.{number >> 8}.{number & 255}")


async def set_ready(client: Client, pod: Object, *, ready: bool, address: str = "") -> None:
    """What an agent writes of a pod that runs."""
    verdict = {**TRUE, "status": "True" if ready else "False"}
    conditions = [{"type": kind, **verdict} for kind in ("Ready", "ContainersReady")]
    addresses = {"podIP": address, "podIPs": [{"ip": address}]} if address else {}
    patch = {"metadata": {"uid": uid(pod)}, "status": {"phase": "Running", "conditions": conditions, **addresses}}
    await client.patch(POD, name(pod), patch, namespace(pod), subresource="status")


@asynccontextmanager
async def running(*workers: Awaitable[None]) -> AsyncIterator[None]:
    """Tasks that live as long as the block; one that fails makes the test fail."""
    async with AsyncExitStack() as stack:
        for worker in workers:
            task = asyncio.ensure_future(worker)
            stack.push_async_callback(_ended, task)
        yield


@asynccontextmanager
async def controlled(client: Client, *, makes_ready: bool = True) -> AsyncIterator[PaperAgent]:
    """All controllers and an agent at work."""
    agent = PaperAgent(client, makes_ready=makes_ready)
    async with running(run_controllers(client), agent.run()):
        yield agent


async def _ended(task: "asyncio.Future[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def eventually(check: Callable[[], Awaitable[T | None]], what: str, timeout_s: float = 5.0) -> T:
    """`wait_until_async`, in the paces of a test."""
    return await wait_until_async(check, timeout_s, what, every_s=0.005)


async def pods(client: Client, selector: str = "") -> list[Object]:
    """All pods that are not on their way out."""
    return [pod for pod in (await client.list(POD, label_selector=selector)).items if not is_deleting(pod)]


async def ready_pods(client: Client, count: int, selector: str = "") -> list[Object]:
    """Exactly so many pods, all of them ready."""

    async def check() -> list[Object] | None:
        found = (await client.list(POD, label_selector=selector)).items
        return found if len(found) == count and all(map(is_ready, found)) else None

    if count == 0:
        await vanished(client, POD, selector)
        return []
    return await eventually(check, f"{count} pods are ready")


async def vanished(client: Client, kind: Kind, selector: str = "") -> None:
    """None of that kind is left."""

    async def check() -> bool:
        return not (await client.list(kind, label_selector=selector)).items

    await eventually(check, f"no {kind.plural} are left")


async def endpoints(client: Client, service: str) -> list[dict[str, Any]]:
    """The endpoints in all slices of a Service."""
    slices = await slices_of(client, service)
    return [endpoint for slice_ in slices for endpoint in slice_["endpoints"]]


async def slices_of(client: Client, service: str) -> list[Object]:
    """The slices of a Service, by name."""
    return (await client.list(ENDPOINT_SLICE, "default", label_selector=f"{SERVICE_NAME_LABEL}={service}")).items


async def addresses_become(client: Client, service: str, wanted: set[str], *, ready: bool = True) -> None:
    """The Service comes to have exactly these ready addresses."""

    async def check() -> bool:
        found = await endpoints(client, service)
        return {a for e in found if e["conditions"]["ready"] is ready for a in e["addresses"]} == wanted

    await eventually(check, f"the endpoints of {service} are {wanted}")


async def add_node(client: Client, name: str, *, labels: dict[str, str] | None = None, **fields: Any) -> Object:
    """A node that is Ready."""
    return await client.create(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
            "spec": fields,
            "status": {"conditions": [{"type": "Ready", **TRUE}]},
        }
    )


async def set_node_ready(client: Client, name: str, *, ready: bool) -> None:
    """What an agent says of its node."""
    conditions = [{"type": "Ready", **TRUE, "status": "True" if ready else "False"}]
    await client.patch(NODE, name, {"status": {"conditions": conditions}}, subresource="status")


def pod(name: str, node: str = "", *, labels: dict[str, str] | None = None, **fields: Any) -> Object:
    """A pod with one container."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels or {}},
        "spec": {**template_spec(), **({"nodeName": node} if node else {}), **fields},
    }


def template_spec() -> dict[str, Any]:
    """A container, and no time to lose when it ends."""
    ports = [{"name": "http", "containerPort": 80}]
    return {"terminationGracePeriodSeconds": 1, "containers": [{"name": "web", "image": "web", "ports": ports}]}


def deployment(replicas: int, name: str = "web", **fields: Any) -> Object:
    """A Deployment of pods labelled app=NAME."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, **workload_spec(name), **fields},
    }


def replica_set(replicas: int, name: str = "web") -> Object:
    """A ReplicaSet of pods labelled app=NAME."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, **workload_spec(name)},
    }


def workload_spec(name: str) -> dict[str, Any]:
    """Selector and template."""
    labels = {"app": name}
    return {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": template_spec()},
    }


def service(name: str = "web", **fields: Any) -> Object:
    """A Service of the pods labelled app=NAME, port 80."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}], **fields},
    }
