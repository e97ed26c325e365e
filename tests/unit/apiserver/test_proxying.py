"""The subresource `proxy`: what goes to the node, pod or Service, and what comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbed.api.kinds import ENDPOINT_SLICE, NODE, POD, SERVICE
from testbed.api.objects import Key, Object
from testbed.apiserver.proxying import Name
from testbed.client.http import HttpClient
from testbed.errors import BadRequest, NotFound, ServiceUnavailable
from tests.unit.apiserver.agent import dead_port, node, running
from tests.unit.apiserver.parts import TOKEN, Wire, pod, served, status

NODES = "/api/v1/nodes"
PODS, SERVICES = "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/services"


@dataclass
class Backend:
    """Remembers what it was asked, and says hello."""

    port: int = 0
    asked: list[bytes] = field(default_factory=list)
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Type: text/x-hello\r\nX-Own: 1\r\nContent-Length: 5\r\n\r\nhello"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((line.split(b": ")[1] for line in head.split(b"\r\n") if line.startswith(b"Content-Len")), b"0")
        self.asked.append(head + await reader.readexactly(int(length)))
        writer.write(self.answer)
        await writer.drain()
        writer.close()

    @property
    def first_line(self) -> str:
        return self.asked[-1].partition(b"\r\n")[0].decode()


@asynccontextmanager
async def backend() -> AsyncIterator[Backend]:
    one = Backend()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    async with server:
        yield one


def worker(name: str, *, agent_port: int = 1) -> Object:
    """A node at 127.0.0.1."""
    found = node(agent_port)
    found["metadata"]["name"] = name
    found["status"]["addresses"] = [{"type": "InternalIP", "address": "127.0.0.1"}]
    return found


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[tuple[Backend, Wire]]:
    async with backend() as one, served(tmp_path) as api:
        await api.resources.create(NODE, "", worker("a"))
        yield one, api


async def test_a_path_of_a_nodes_port_is_asked_there_with_its_query(bed: tuple[Backend, Wire]) -> None:
    one, api = bed
    response = await api.http.get(f"{NODES}/a:{one.port}/proxy/proxy/service%2Fx?name=web&namespace=a%20b")
    assert (response.status_code, response.text) == (200, "hello")
    assert (response.headers["content-type"], response.headers["x-own"]) == ("text/x-hello", "1")
    assert one.first_line == "GET /proxy/service%2Fx?name=web&namespace=a%20b HTTP/1.1"


async def test_the_token_stays_here_and_other_headers_go_on(bed: tuple[Backend, Wire]) -> None:
    one, api = bed
    await api.http.get(f"{NODES}/a:{one.port}/proxy/", headers={"X-Asked": "yes", "Connection": "keep-alive"})
    head = one.asked[0].lower()
    assert b"authorization" not in head
    assert b"\r\nx-asked: yes\r\n" in head
    assert b"\r\nconnection: close\r\n" in head
    assert b"\r\nhost: 127.0.0.1\r\n" in head


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_every_method_goes_on_with_its_body(bed: tuple[Backend, Wire], method: str) -> None:
    one, api = bed
    response = await api.call(method, f"{NODES}/a:{one.port}/proxy/x", b"a body", media_type="text/plain")
    assert response.text == "hello"
    assert one.first_line == f"{method} /x HTTP/1.1"
    assert one.asked[0].endswith(b"\r\n\r\na body")


async def test_a_head_has_no_body(bed: tuple[Backend, Wire]) -> None:
    one, api = bed
    one.answer = one.answer.removesuffix(b"hello")
    response = await api.call("HEAD", f"{NODES}/a:{one.port}/proxy/x")
    assert (response.status_code, response.headers["content-length"]) == (200, "5")


async def test_what_the_backend_refuses_is_refused_alike(bed: tuple[Backend, Wire]) -> None:
    one, api = bed
    one.answer = b"HTTP/1.1 418 Teapot\r\nContent-Length: 5\r\n\r\nshort"
    response = await api.call("GET", f"{NODES}/a:{one.port}/proxy/x")
    assert (response.status_code, response.text) == (418, "short")


async def test_a_page_without_a_path_is_moved_to_its_root(bed: tuple[Backend, Wire]) -> None:
    one, api = bed
    response = await api.http.get(f"{NODES}/a:{one.port}/proxy?x=1")
    assert response.status_code == 301
    assert response.headers["location"] == f"{NODES}/a:{one.port}/proxy/?x=1"
    await api.call("POST", f"{NODES}/a:{one.port}/proxy")
    assert one.first_line == "POST / HTTP/1.1"


async def test_a_node_that_is_none_and_one_that_is_silent_are_told_apart(bed: tuple[Backend, Wire]) -> None:
    _, api = bed
    unknown = await api.call("GET", f"{NODES}/other:10249/proxy/metrics")
    assert (unknown.status_code, status(unknown)["message"]) == (404, 'nodes "other" not found')
    port = await dead_port()
    silent = await api.call("GET", f"{NODES}/a:{port}/proxy/metrics")
    assert silent.status_code == 503
    assert f"error trying to reach service: dial 127.0.0.1:{port}: " in status(silent)["message"]


@pytest.mark.parametrize("name", ["a:port", "a:0", "a:70000", "gopher:a:80", "http:a:80:90"])
async def test_a_name_of_another_form_is_refused(bed: tuple[Backend, Wire], name: str) -> None:
    _, api = bed
    assert status(await api.call("GET", f"{NODES}/{name}/proxy/"))["code"] == 400


async def test_without_a_port_the_agent_is_asked_with_the_servers_own_token(tmp_path: Path) -> None:
    async with running(tmp_path) as (agent, agents), served(tmp_path, agents=agents) as api:
        await api.resources.create(NODE, "", worker("a", agent_port=agent.port))
        path = "/containerLogs/default/web/main?tailLines=2"
        for name in ("a", f"a:{agent.port}"):
            assert (await api.http.get(f"{NODES}/{name}/proxy{path}")).text == "one\ntwo\n"
    assert agent.asked == [(path, "Bearer agents-token")] * 2


async def test_a_pod_is_asked_at_its_address(bed: tuple[Backend, Wire]) -> None:
    one, api = bed
    await running_pod(api, one.port)
    for name in (f"web:{one.port}", f"http:web:{one.port}", "web"):
        assert (await api.call("GET", f"{PODS}/{name}/proxy/a/b")).text == "hello"
    assert one.first_line == "GET /a/b HTTP/1.1"
    await api.resources.create(POD, "default", pod("late"))
    assert status(await api.call("GET", f"{PODS}/late/proxy/"))["code"] == 503


@pytest.mark.parametrize("port", ["", ":80", ":http"])
async def test_a_service_is_asked_at_an_endpoint_that_is_ready(bed: tuple[Backend, Wire], port: str) -> None:
    one, api = bed
    await service_at(api, one.port)
    assert (await api.call("GET", f"{SERVICES}/web{port}/proxy/a")).text == "hello"


async def test_a_service_without_that_port_or_without_endpoints_is_unavailable(bed: tuple[Backend, Wire]) -> None:
    _, api = bed
    await service_at(api, 0)
    assert "no service port 'x' found" in status(await api.call("GET", f"{SERVICES}/web:x/proxy/"))["message"]
    assert "no endpoints available" in status(await api.call("GET", f"{SERVICES}/web/proxy/"))["message"]


async def test_a_client_gets_the_bytes_or_the_error(bed: tuple[Backend, Wire]) -> None:
    one, api = bed
    async with HttpClient(f"unix://{api.socket}", TOKEN) as client:
        assert await client.get_raw(f"{NODES}/a:{one.port}/proxy/x?name=a%26b") == b"hello"
        assert one.first_line == "GET /x?name=a%26b HTTP/1.1"
        with pytest.raises(NotFound, match='nodes "other" not found'):
            await client.get_raw(f"{NODES}/other:1/proxy/")
        with pytest.raises(ServiceUnavailable, match="error trying to reach service"):
            await client.get_raw(f"{NODES}/a:{await dead_port()}/proxy/x")


def test_a_name_may_have_a_scheme_and_a_port() -> None:
    assert Name.parse("web") == Name("", "web", "")
    assert Name.parse("web:http") == Name("", "web", "http")
    assert Name.parse("https:web:443") == Name("https", "web", "443")
    with pytest.raises(BadRequest):
        Name.parse("a:b:c")


async def running_pod(api: Wire, port: int) -> None:
    """Pod web at 127.0.0.1, whose container names that port."""
    wanted = pod("web", nodeName="a")
    wanted["spec"]["containers"][0]["ports"] = [{"containerPort": port}]
    await api.resources.create(POD, "default", wanted)
    changed = {"status": {"podIP": "127.0.0.1", "phase": "Running"}}
    await api.resources.patch(POD, Key("default", "web"), changed, "status")


async def service_at(api: Wire, port: int) -> None:
    """Service web, port 80, with an endpoint at that port of 127.0.0.1 (0: none) and one that is not ready."""
    spec = {"ports": [{"name": "http", "port": 80}]}
    meta = {"name": "web", "namespace": "default"}
    await api.resources.create(
        SERVICE, "default", {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
    )
    unready = {"addresses": ["127.0.0.2"], "conditions": {"ready": False}}
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**meta, "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"]}, unready] if port else [unready],
        "ports": [{"name": "http", "port": port or 1, "protocol": "TCP"}],
    }
    api.resources.store.create(ENDPOINT_SLICE, slice_)  # past admission, which wants endpoints that others can reach
