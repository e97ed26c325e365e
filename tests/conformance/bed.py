"""A cluster under test and a namespace of one row's own in it: create objects, wait for them, ask from inside pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.api.kinds import ENDPOINT_SLICE, NAMESPACE, NODE, POD, SERVICE
from testbed.api.objects import Object, is_ready, labels, name, spec, status
from testbed.api.wellknown import ROLE_LABEL, SERVICE_NAME_LABEL
from testbed.client.http import HttpClient
from testbed.client.streams import ExecStream
from testbed.errors import NotFound, TimedOut
from testbed.waiting import wait_until_async
from tests.e2e.asking import Answer, Question, ask, evaluate, value
from tests.e2e.clusters import Cluster

INNODE = Path(__file__).with_name("innode.py")
READY_S = 30.0
PROGRAMMED_S = 10.0
"""A bound for service rules to follow; how fast they do is for the benchmarks."""


class NotApplicable(Exception):
    """A row cannot be judged on this cluster; the message says why."""


@dataclass(frozen=True)
class Subject:
    """A cluster under test. `cluster` is None for a foreign one, of which nothing but its API is known."""

    client: HttpClient
    runtime: str
    mode: str
    cluster: Cluster | None

    def own(self) -> Cluster:
        """The cluster as something that may be broken and changed; NotApplicable for a foreign one."""
        if self.cluster is None:
            raise NotApplicable("it breaks or changes the cluster, which only one of our own may suffer")
        return self.cluster


@dataclass(frozen=True)
class Running:
    """A pod that is Ready."""

    name: str
    node: str
    ip: str
    host_ip: str


@dataclass(frozen=True)
class Bed:
    """The subject and the row's namespace."""

    subject: Subject
    namespace: str

    @property
    def client(self) -> HttpClient:
        """The cluster's API."""
        return self.subject.client

    async def nodes(self, at_least: int = 1) -> list[str]:
        """Ready workers, sorted by name; NotApplicable where there are fewer than wanted."""
        items = (await self.client.list(NODE)).items
        ready = sorted(name(node) for node in items if is_ready(node) and not _is_outside(node))
        if len(ready) < at_least:
            raise NotApplicable(f"it needs {at_least} worker nodes; the cluster has {len(ready)}")
        return ready

    async def outside(self) -> str:
        """A node outside the cluster; NotApplicable where there is none."""
        for node in (await self.client.list(NODE)).items:
            if _is_outside(node):
                return name(node)
        raise NotApplicable("it needs a machine outside the cluster (a node with role: external)")

    async def run(self, *pods: Object) -> list[Running]:
        """Create pods, all at once, and wait until every one is Ready."""
        await asyncio.gather(*(self.create(pod) for pod in pods))
        return list(await asyncio.gather(*(self.ready(name(pod)) for pod in pods)))

    async def create(self, obj: Object) -> Object:
        """Create an object in the row's namespace."""
        return await self.client.create({**obj, "metadata": {**obj["metadata"], "namespace": self.namespace}})

    async def ready(self, pod: str) -> Running:
        """The pod, once it is Ready."""

        async def check() -> Object | None:
            found = await self.client.get(POD, pod, self.namespace)
            return found if is_ready(found) else None

        found = await wait_until_async(check, READY_S, f"readiness of pod {self.namespace}/{pod}", every_s=0.05)
        return Running(pod, spec(found)["nodeName"], status(found)["podIP"], status(found)["hostIP"])

    async def delete_pod(self, pod: str) -> None:
        """Delete a pod and wait until it is gone."""
        await self.client.delete(POD, pod, self.namespace)

        async def check() -> bool:
            try:
                await self.client.get(POD, pod, self.namespace)
            except NotFound:
                return True
            return False

        await wait_until_async(check, READY_S, f"the end of pod {self.namespace}/{pod}", every_s=0.05)

    async def serve(self, service: Object) -> str:
        """Create a Service; its ClusterIP."""
        return str((await self.create(service))["spec"]["clusterIP"])

    async def slices(self, service: str) -> list[Object]:
        """The EndpointSlices of a Service."""
        selector = f"{SERVICE_NAME_LABEL}={service}"
        return (await self.client.list(ENDPOINT_SLICE, self.namespace, label_selector=selector)).items

    async def endpoints(self, service: str) -> set[tuple[str, int, str]]:
        """Address, port and protocol of each endpoint that takes traffic."""
        return {
            (address, port["port"], port.get("protocol", "TCP"))
            for item in await self.slices(service)
            for endpoint in item.get("endpoints") or []
            if (endpoint.get("conditions") or {}).get("ready", True)
            for address in endpoint["addresses"]
            for port in item.get("ports") or []
        }

    async def expect_endpoints(self, service: str, wanted: set[tuple[str, int, str]]) -> None:
        """Wait until a Service has exactly these endpoints."""

        async def check() -> bool:
            return await self.endpoints(service) == wanted

        await wait_until_async(check, READY_S, f"{sorted(wanted)} as the endpoints of {service}", every_s=0.05)

    async def set_ports(self, service: str, ports: Sequence[Object]) -> None:
        """Replace the ports of a Service."""
        await self.client.patch(SERVICE, service, {"spec": {"ports": list(ports)}}, self.namespace)

    async def ask(self, pod: Running, question: str, **details: Any) -> Answer:
        """One question of tests/e2e/inpod.py, asked from inside a pod."""
        return (await self.ask_all(pod, [(question, details)]))[0]

    async def ask_all(self, pod: Running, questions: Sequence[Question], *, container: str = "") -> list[Answer]:
        """Several questions, one after the other, in one go."""
        return await ask(self.client, self.namespace, pod.name, questions, container=container)

    async def ask_until(self, pod: Running, wanted: str, question: str, **details: Any) -> Answer:
        """Ask again and again until the outcome is `wanted`."""
        last: Answer = {}

        async def check() -> bool:
            last.clear()
            last.update(await self.ask(pod, question, **details))
            return bool(last["outcome"] == wanted)

        try:
            await wait_until_async(check, PROGRAMMED_S, "", every_s=0.05)
        except TimedOut:
            asked = f"{question} {details} asked from {pod.name}"
            raise AssertionError(f"{asked}: {last} instead of {wanted} for {PROGRAMMED_S:g} s") from None
        return last

    async def ask_node(self, pod: Running, function: str, **details: Any) -> Answer:
        """Call a function of tests/conformance/innode.py in a hostNetwork pod with NET_ADMIN and NET_RAW."""
        async with self._innode(pod, function, details) as program:
            answer: Answer = await value(program)
        return answer

    @asynccontextmanager
    async def meanwhile(self, pod: Running, function: str, **details: Any) -> AsyncIterator[asyncio.Task[Answer]]:
        """The same, running while the body does: it is entered when the function has begun to look."""
        async with self._innode(pod, function, details) as program:
            looking = asyncio.Event()
            task = asyncio.create_task(value(program, looking))
            try:
                await looking.wait()
                yield task
            finally:
                task.cancel()

    async def log_lines(self, pod: str) -> list[str]:
        """What the pod has printed."""
        printed = b"".join([chunk async for chunk in self.client.logs(self.namespace, pod)])
        return printed.decode().splitlines()

    def _innode(self, pod: Running, function: str, details: dict[str, Any]) -> ExecStream:
        return evaluate(self.client, self.namespace, pod.name, INNODE, f"{function}(**{details!r})", "")


def _is_outside(node: Object) -> bool:
    return labels(node).get(ROLE_LABEL) == "external"


@asynccontextmanager
async def bed(subject: Subject, row_id: str) -> AsyncIterator[Bed]:
    """A namespace for one row; it is removed with all that is in it, and removed means that nothing of it is left."""
    prefix = f"{row_id.lower()}-"
    made = await subject.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": prefix}})
    try:
        yield Bed(subject, name(made))
    finally:
        await _remove(subject.client, name(made))


async def _remove(client: HttpClient, namespace: str) -> None:
    await client.delete(NAMESPACE, namespace)

    async def check() -> bool:
        try:
            await client.get(NAMESPACE, namespace)
        except NotFound:
            return not (await client.list(POD, namespace)).items
        return False

    await wait_until_async(check, READY_S, f"the end of namespace {namespace}", every_s=0.05)
