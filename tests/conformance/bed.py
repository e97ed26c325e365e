"""A cluster under test and a namespace of one row's own in it: create objects, wait for them, ask from inside pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.api.kinds import ENDPOINT_SLICE, NAMESPACE, NODE, POD, SERVICE
from testbed.api.objects import Object, is_ready, labels, name, spec, status
from testbed.api.wellknown import ROLE_LABEL, SERVICE_NAME_LABEL
from testbed.client.http import HttpClient
from testbed.client.streams import ExecStream
from testbed.errors import Invalid, NotFound, TimedOut
from testbed.waiting import wait_until_async
from tests.conformance.manifests import HTTP
from tests.e2e.asking import INPOD, Answer, Question, ask, evaluate, value
from tests.e2e.clusters import Cluster
from tests.tiers import SLOWNESS

INNODE = Path(__file__).with_name("innode.py")
_Meanwhile = AbstractAsyncContextManager[asyncio.Task[Answer]]
READY_S = 30.0 * SLOWNESS
PROGRAMMED_S = 10.0 * SLOWNESS
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

    @property
    def proxy(self) -> str:
        """The proxy's mode; empty for a foreign cluster."""
        return self.mode.rpartition("+")[2]

    def own(self) -> Cluster:
        """The cluster as something that may be broken and changed; NotApplicable for a foreign one."""
        if self.cluster is None:
            raise NotApplicable("it breaks or changes the cluster, which only one of our own may suffer")
        return self.cluster

    async def reshape(self, **settings: Any) -> None:
        """Change the topology of our own cluster and bring it up so, as `Cluster.set` does."""
        cluster = self.own()
        cluster.set(**settings)
        (await asyncio.to_thread(cluster.up)).expect()


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

    async def refusal(self, obj: Object) -> str:
        """What the API server says when it refuses an object as Invalid (422), which it must."""
        try:
            created = await self.create(obj)
        except Invalid as refused:
            return str(refused)
        raise AssertionError(f"{created['kind']} {name(created)} was created, and should have been refused")

    async def ready(self, pod: str) -> Running:
        """The pod, once it is Ready."""

        async def check() -> Object | None:
            found = await self.client.get(POD, pod, self.namespace)
            return found if is_ready(found) else None

        found = await wait_until_async(check, READY_S, f"readiness of pod {self.namespace}/{pod}", every_s=0.05)
        return Running(pod, spec(found)["nodeName"], status(found)["podIP"], status(found)["hostIP"])

    async def terminate(self, pod: str) -> None:
        """Delete a pod and wait until its endpoints know; one that lingers goes on serving."""
        await self.client.delete(POD, pod, self.namespace)

        async def check() -> bool:
            items = (await self.client.list(ENDPOINT_SLICE, self.namespace)).items
            endpoints = [endpoint for item in items for endpoint in item.get("endpoints") or []]
            own = [endpoint for endpoint in endpoints if (endpoint.get("targetRef") or {}).get("name") == pod]
            return all((endpoint.get("conditions") or {}).get("terminating") for endpoint in own)

        await wait_until_async(check, READY_S, f"terminating endpoints of {self.namespace}/{pod}", every_s=0.05)

    async def end(self, client: Running, *servers: Running) -> None:
        """Let servers that linger exit now, so that nobody has to wait for them."""
        for server in servers:
            await self.ask(client, "http", host=server.ip, port=HTTP, path="/exit")

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

    async def balance(self, service: Object) -> tuple[Object, str]:
        """Create a Service of type LoadBalancer; itself and its address. NotApplicable where nobody gives it one."""
        created = await self.create(service)

        async def check() -> str:
            found = await self.client.get(SERVICE, name(created), self.namespace)
            ingress = (status(found).get("loadBalancer") or {}).get("ingress") or [{}]
            return str(ingress[0].get("ip") or "")

        try:
            return created, await wait_until_async(check, READY_S, "", every_s=0.05)
        except TimedOut:
            if self.subject.cluster:
                raise AssertionError(f"Service {name(created)} got no load balancer's address") from None
            raise NotApplicable("nobody gives Services of type LoadBalancer an address") from None

    async def address_of(self, node: str) -> str:
        """A node's InternalIP."""
        found = status(await self.client.get(NODE, node))["addresses"]
        return next(str(address["address"]) for address in found if address["type"] == "InternalIP")

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

    async def change(self, service: str, **fields: Any) -> Object:
        """Merge fields into the spec of a Service; the Service as it is then."""
        return await self.client.patch(SERVICE, service, {"spec": fields}, self.namespace)

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
        async with self._evaluate(pod, INNODE, f"{function}(**{details!r})") as program:
            answer: Answer = await value(program)
        return answer

    def meanwhile(self, pod: Running, function: str, **details: Any) -> _Meanwhile:
        """The same, running while the body does: it is entered when the function has begun to look."""
        return self._beside(pod, INNODE, f"{function}(**{details!r})")

    def asking(self, pod: Running, question: str, **details: Any) -> _Meanwhile:
        """A question that takes its time, asked while the body runs: it is entered when the pod has begun."""
        return self._beside(pod, INPOD, f"ask({question!r}, **{details!r})")

    @asynccontextmanager
    async def _beside(self, pod: Running, script: Path, expression: str) -> AsyncIterator[asyncio.Task[Answer]]:
        async with self._evaluate(pod, script, expression) as program:
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

    def _evaluate(self, pod: Running, script: Path, expression: str) -> ExecStream:
        return evaluate(self.client, self.namespace, pod.name, script, expression, "")


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
