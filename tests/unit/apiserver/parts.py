"""A small cluster's specification, and the API server over it: in this process, or as the process that it is."""

from __future__ import annotations

import copy
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import httpx
import orjson

from testbed.api.kinds import NAMESPACE, kind_of
from testbed.api.objects import Object
from testbed.apiserver.agents import Agents
from testbed.apiserver.auth import BearerToken
from testbed.apiserver.http import ApiServer
from testbed.apiserver.resources import Resources
from testbed.apiserver.serving import Listeners
from testbed.apiserver.store import WINDOW, Store
from testbed.apiserver.watching import BOOKMARK_S
from testbed.runtime.bootstrap import write_bootstrap
from testbed.topology.spec import ClusterSpec, DnsSpec, HostSpec, NetworkSpec, ServicesSpec, UnderlaySpec
from testbed.waiting import wait_until

TOKEN = "a-secret"
CONTAINER = {"name": "main", "image": "testbed/web"}
SPEC = ClusterSpec(
    name="small",
    runtime="netns",
    hosts=(HostSpec("here", "", "", IPv4Address("198.18.0.1")),),
    nodes=(),
    underlay=UnderlaySpec(
        cidr=IPv4Network("198.18.0.0/16"),
        gateway=IPv4Address("198.18.0.1"),
        control_plane=IPv4Address("198.18.0.2"),
        mtu=1500,
        segmentation="offload",
        uplink=False,
        outside_cidr=IPv4Network("198.19.255.0/24"),
        outside_gateway=IPv4Address("198.19.255.1"),
    ),
    network=NetworkSpec("vxlan", IPv4Network("10.244.0.0/16"), 1450, 1, 8472),
    services=ServicesSpec(
        "nftables", IPv4Network("10.96.0.0/24"), IPv4Address("10.96.0.1"), IPv4Address("10.96.0.10"), None
    ),
    dns=DnsSpec("cluster.local"),
)


@asynccontextmanager
async def opened(
    path: Path, *, services: ServicesSpec = SPEC.services, window: int = WINDOW
) -> AsyncIterator[Resources]:
    """The verbs over a store in the directory `path`, with the namespace default."""
    store = Store.open(path / "store.db", window=window)
    resources = Resources(store, services)
    try:
        if not resources.list(NAMESPACE).records:
            await resources.create(NAMESPACE, "", namespace("default"))
        yield resources
    finally:
        store.close()


@asynccontextmanager
async def served(
    path: Path, *, window: int = WINDOW, agents: Agents | None = None, bookmark_s: float = BOOKMARK_S
) -> AsyncIterator[Wire]:
    """A real uvicorn on a Unix socket in the directory `path`, and a client that speaks plain HTTP to it."""
    async with opened(path, window=window) as resources:
        agents = agents or Agents(ssl.create_default_context(), "")
        listeners = Listeners(ApiServer(resources, BearerToken(TOKEN), agents, bookmark_s=bookmark_s))
        await listeners.listen_unix(path / "api.sock")
        transport = httpx.AsyncHTTPTransport(uds=str(path / "api.sock"))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers, timeout=5.0) as http:
            try:
                yield Wire(http, resources, path / "api.sock")
            finally:
                resources.store.close_watches()
                await listeners.close()


@dataclass(frozen=True)
class Wire:
    """HTTP to a served API, and the verbs behind it."""

    http: httpx.AsyncClient
    resources: Resources
    socket: Path

    async def call(
        self, method: str, path: str, body: Any = None, *, media_type: str = "application/json", **query: str
    ) -> httpx.Response:
        """One request; a body that is no bytes is sent as JSON."""
        content = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Content-Type": media_type} if content is not None else {}
        return await self.http.request(method, path, content=content, headers=headers, params=query)

    async def lines(self, path: str, count: int, **query: str) -> list[dict[str, Any]]:
        """The first `count` events of a watch; fewer where it ends."""
        events: list[dict[str, Any]] = []
        async with self.http.stream("GET", path, params={"watch": "true", **query}) as response:
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                events.append(orjson.loads(line))
                if len(events) == count:
                    break
        return events


@dataclass
class ControlPlane:
    """The control plane as a process over the directory `path`."""

    path: Path
    listener: socket.socket | None = None
    """Bound; handed over, and served with TLS."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.path / "api.sock"

    @property
    def token(self) -> str:
        """Its token."""
        return (self.path / "token").read_text().strip()

    def start(self) -> None:
        """Start it and wait until it serves."""
        write_bootstrap(self.path, SPEC)
        self.socket.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "testbed.daemon", "control-plane", "--dir", str(self.path)]
        argv += ["--data", str(self.path / "data"), "--socket", str(self.socket), "--port", "0"]
        inherited = [self.listener.fileno()] if self.listener else []
        argv += [f"--listen-fd={number}" for number in inherited]
        with (self.path / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stderr=log, pass_fds=inherited)
        wait_until(self._is_up, 10.0, f"the start of the control plane ({self.path / 'log'})", every_s=0.005)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal, wait for its end; its exit code."""
        assert self.process is not None, "started before"
        self.process.send_signal(number)
        return self.process.wait(10.0)

    def _is_up(self) -> bool:
        assert self.process is not None, "started before"
        assert self.process.poll() is None, (self.path / "log").read_text()
        with socket.socket(socket.AF_UNIX) as knock:
            return knock.connect_ex(str(self.socket)) == 0


@contextmanager
def control_plane(path: Path, listener: socket.socket | None = None) -> Iterator[ControlPlane]:
    """A running control plane, killed at the end if need be."""
    plane = ControlPlane(path, listener)
    plane.start()
    try:
        yield plane
    finally:
        if plane.process is not None and plane.process.poll() is None:
            plane.stop(signal.SIGKILL)


def status(response: httpx.Response) -> dict[str, Any]:
    """The Status of a refusal, which must agree with the response."""
    found: dict[str, Any] = response.json()
    assert (found["kind"], found["apiVersion"], found["status"]) == ("Status", "v1", "Failure")
    assert found["code"] == response.status_code
    return found


def namespace(name: str) -> Object:
    """A Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def config_map(name: str, namespace: str = "default", **data: str) -> Object:
    """A ConfigMap."""
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def pod(name: str = "web", **spec: Any) -> Object:
    """A Pod of one container."""
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [{**CONTAINER}], **spec}}


def service(name: str = "web", **spec: Any) -> Object:
    """A Service of port 80."""
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 80}], **spec}}


def deployment(name: str = "web", **spec: Any) -> Object:
    """A Deployment of pods labelled app=NAME."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod()["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


def with_metadata(**fields: Any) -> Object:
    """The ConfigMap a, with more metadata."""
    obj = config_map("a")
    obj["metadata"] |= fields
    return obj


def with_container(**fields: Any) -> Object:
    """A Pod whose container says more."""
    return pod(containers=[{**CONTAINER, **fields}])


def template(**spec: Any) -> Object:
    """A pod template, labelled app=web."""
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{**CONTAINER}], **spec}}


def node(**spec: Any) -> Object:
    """The Node web."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "web"}, "spec": spec}


async def created(resources: Resources, obj: Object) -> Object:
    """What was stored of it."""
    space = obj["metadata"].get("namespace", "")
    return (await resources.create(kind_of(obj), space, copy.deepcopy(obj))).copy()
