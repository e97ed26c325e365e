"""The subresource `proxy`: a request on its way through the API server to a node, pod or Service.

    /api/v1/nodes/[SCHEME:]NAME[:PORT]/proxy/PATH                      without a port: the node's agent
    /api/v1/namespaces/NS/pods/[SCHEME:]NAME[:PORT]/proxy/PATH         without a port: its first, or 80
    /api/v1/namespaces/NS/services/[SCHEME:]NAME[:PORT]/proxy/PATH     the port's name or number; its only one

Every method, the query, the body and the headers are passed on, but those that belong to one connection, and the
token, which is between the client and this server. The control plane stands on the underlay and dials from there.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from testbed.api.kinds import ENDPOINT_SLICE, NODE, POD, SERVICE, Kind
from testbed.api.objects import Key, Object, labels, spec, status
from testbed.api.wellknown import SERVICE_NAME_LABEL
from testbed.apiserver.agents import Agents, agent_at
from testbed.apiserver.exchange import Request, Response
from testbed.apiserver.relay import Relay
from testbed.apiserver.resources import Resources
from testbed.apiserver.routes import Target
from testbed.client.connection import Server
from testbed.errors import BadRequest, ServiceUnavailable

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
HEAD_WITHIN_S = 20.0
"""Less than our own client waits, which so learns who it is that does not answer."""
HTTP_PORT = 80
_OWN = frozenset(
    {b"authorization", b"connection", b"content-length", b"host", b"keep-alive", b"proxy-authenticate"}
    | {b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
"""Headers of one connection (RFC 9110, 7.6.1), and what is between the client and us."""


@dataclass(frozen=True)
class Name:
    """`[SCHEME:]NAME[:PORT]`, as the path of a `proxy` names its object."""

    scheme: Literal["http", "https", ""]
    name: str
    port: str

    @classmethod
    def parse(cls, text: str) -> Name:
        """BadRequest for what has another form."""
        match text.split(":"):
            case [name]:
                return cls("", name, "")
            case [name, port]:
                return cls("", name, port)
            case [("http" | "https") as scheme, name, port]:
                return cls(scheme, name, port)
        raise BadRequest(f"invalid proxy request {text!r}: write it as [SCHEME:]NAME[:PORT]")


@dataclass(frozen=True)
class Backend:
    """Whom to dial; `headers` go with the request, ahead of the client's."""

    server: Server
    headers: Mapping[str, str]


async def proxied(resources: Resources, agents: Agents, addressed: Target, request: Request) -> Relay | Response:
    """Dial what is addressed, pass the request on, and wait for the head of the answer.

    NotFound, BadRequest; ServiceUnavailable where nobody answers. A page asked for without a path is moved to `/`, so
    that relative links work.
    """
    path = _path_of(addressed, request)
    if path is None:
        location = request.raw_path + b"/" + (b"?" + request.query_string if request.query_string else b"")
        return Response(b"", 301, headers=((b"location", location),))
    backend = BACKENDS[addressed.kind](resources, agents, addressed, Name.parse(addressed.name))
    return await _exchanged(backend, request, path, await request.body())


def _path_of(addressed: Target, request: Request) -> bytes | None:
    """What follows `proxy`, still encoded; None where a reader asks for nothing in particular."""
    before = 8 if addressed.kind.namespaced else 6
    rest = request.raw_path.split(b"/", before)[before:]
    if not rest and request.method in ("GET", "HEAD"):
        return None
    return b"/" + b"".join(rest)


async def _exchanged(backend: Backend, request: Request, path: bytes, body: bytes) -> Relay:
    server = backend.server
    with ExitStack() as undo:
        try:
            async with asyncio.timeout(HEAD_WITHIN_S):
                connection = await server.connect()
                undo.callback(connection.abort)
                exchange = connection.send(_head(backend, request, path, body) + body)
                await exchange.head()
        except OSError as error:
            said = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
            where = f"{server.host}:{server.port}"
            raise ServiceUnavailable(f"error trying to reach service: dial {where}: {said}") from error
        undo.pop_all()
    headers = [(name, value) for name, value in exchange.headers if name.lower() not in _OWN - {b"content-length"}]
    return Relay(connection, exchange, request.receive, headers, is_bodiless=request.method == "HEAD")


def _head(backend: Backend, request: Request, path: bytes, body: bytes) -> bytes:
    target = path + (b"?" + request.query_string if request.query_string else b"")
    headers = [(name.encode(), value.encode()) for name, value in backend.headers.items()]
    headers += [(b"Host", backend.server.host.encode()), (b"Connection", b"close")]
    headers += [(b"Content-Length", b"%d" % len(body))] if body else []
    headers += [(name, value) for name, value in request.headers.items() if name not in _OWN]
    first = b" ".join((request.method.encode(), target, b"HTTP/1.1"))
    return b"\r\n".join([first, *(name + b": " + value for name, value in headers), b"", b""])


def _node(resources: Resources, agents: Agents, _: Target, name: Name) -> Backend:
    node = resources.get(NODE, Key("", name.name)).document
    address, port = agent_at(node)
    if name.port in ("", str(port)):
        return Backend(Server(address, port, agents.tls), agents.headers)
    internal = (each["address"] for each in status(node).get("addresses") or () if each["type"] == "InternalIP")
    if (own := next(internal, None)) is None:
        raise ServiceUnavailable(f"node {name.name} has told no address yet")
    return _plain(own, name, _number(name.port))


def _pod(resources: Resources, _: Agents, addressed: Target, name: Name) -> Backend:
    pod = resources.get(POD, Key(addressed.namespace, name.name)).document
    address = status(pod).get("podIP")
    if not address:
        raise ServiceUnavailable(f"address not allowed: pod {name.name} has none yet")
    ports = (port["containerPort"] for each in spec(pod)["containers"] for port in each.get("ports") or ())
    return _plain(address, name, _number(name.port) if name.port else next(ports, HTTP_PORT))


def _service(resources: Resources, _: Agents, addressed: Target, name: Name) -> Backend:
    """Any endpoint that is ready, as the Service's port names it."""
    which = Key(addressed.namespace, name.name)
    ports = spec(resources.get(SERVICE, which).document).get("ports") or []
    wanted = [port for port in ports if name.port in (port.get("name") or "", str(port["port"]))]
    wanted = wanted or (ports if len(ports) == 1 and not name.port else [])
    if not wanted:
        raise ServiceUnavailable(f"no service port {name.port!r} found for service {name.name!r}")
    listed = resources.list(ENDPOINT_SLICE, which.namespace).records
    slices = (record.document for record in listed if labels(record.document).get(SERVICE_NAME_LABEL) == which.name)
    ready = list(_ready(slices, wanted[0].get("name") or ""))
    if not ready:
        raise ServiceUnavailable(f"no endpoints available for service {name.name!r}")
    address, port = random.choice(ready)  # noqa: S311 - of equals
    return _plain(address, name, port)


def _ready(slices: Iterable[Object], port_name: str) -> Iterator[tuple[str, int]]:
    for slice_ in slices:
        numbers = [port["port"] for port in slice_.get("ports") or () if (port.get("name") or "") == port_name]
        for endpoint in slice_.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                yield from ((endpoint["addresses"][0], number) for number in numbers if number)


def _plain(address: str, name: Name, port: int) -> Backend:
    return Backend(Server(address, port, _unverified() if name.scheme == "https" else None), {})


def _unverified() -> ssl.SSLContext:
    """Nobody vouches for the certificates of pods, here as in Kubernetes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _number(port: str) -> int:
    if not (port.isdecimal() and 1 <= int(port) <= 65535):
        raise BadRequest(f"{port!r} is no number of a port")
    return int(port)


BACKENDS: Mapping[Kind, Callable[[Resources, Agents, Target, Name], Backend]] = {
    NODE: _node,
    POD: _pod,
    SERVICE: _service,
}
