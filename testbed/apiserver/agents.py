"""The way to the host agents: a connection to the one that runs a pod, at the address its Node tells."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from testbed.api.kinds import NODE
from testbed.api.objects import Key, Object, metadata, name, namespace, spec, status
from testbed.apiserver.exchange import parsed
from testbed.apiserver.resources import Resources
from testbed.client.connection import Connection, Server
from testbed.errors import ApiError, BadRequest, ServiceUnavailable, api_error

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


@dataclass(frozen=True)
class Agents:
    """How agents are verified, and what proves to them that the API server asks."""

    tls: ssl.SSLContext
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """To be sent with every request."""
        return {"Authorization": f"Bearer {self.token}"}

    async def connect(self, address: str, port: int) -> Connection:
        """A TLS connection. OSError, TimeoutError."""
        return await Server(address, port, self.tls).connect()

    def request(self, address: str, target: str) -> bytes:
        """A GET, the only one of its connection."""
        lines = [f"GET {target} HTTP/1.1", f"Host: {address}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()


def unreachable(address: str, port: int, error: BaseException) -> ServiceUnavailable:
    """The refusal where an agent does not answer."""
    return ServiceUnavailable(f"error dialing backend: the agent at {address}:{port}: {error or type(error).__name__}")


def refused(status: int, body: bytes) -> ApiError:
    """The agent's own refusal: its Status, or what it said."""
    with suppress(BadRequest):
        said = parsed(body)
        if isinstance(said, dict) and said.get("kind") == "Status":
            return api_error(said)
    return api_error({"code": status, "message": body.decode(errors="replace").strip()})


def container_of(pod: Object, asked: str) -> str:
    """The container that is meant: the one asked for, the annotated one, or the first. BadRequest."""
    containers = [*spec(pod).get("containers", []), *spec(pod).get("initContainers", [])]
    chosen = asked or metadata(pod).get("annotations", {}).get(DEFAULT_CONTAINER) or containers[0]["name"]
    if chosen not in {container["name"] for container in containers}:
        raise BadRequest(f"container {chosen} is not valid for pod {name(pod)}")
    return str(chosen)


def agent_path(pod: Object, container: str, action: str) -> str:
    """The kubelet's path of an action on a container."""
    return f"/{action}/{namespace(pod)}/{name(pod)}/{container}"


def agent_of(resources: Resources, pod: Object) -> tuple[str, int]:
    """Where the agent listens that runs the pod. BadRequest for a pod without a node, ServiceUnavailable."""
    node_name = spec(pod).get("nodeName")
    if not node_name:
        raise BadRequest(f"pod {name(pod)} does not have a host assigned")
    node = resources.store.get(NODE, Key("", node_name))
    return agent_at(node.document if node else {"metadata": {"name": node_name}})


def agent_at(node: Object) -> tuple[str, int]:
    """Where the agent of the node listens, by the node's own status. ServiceUnavailable where it has not told."""
    endpoint: Mapping[str, Any] = status(node).get("daemonEndpoints", {}).get("kubeletEndpoint", {})
    if not endpoint.get("Address") or not endpoint.get("Port"):
        raise ServiceUnavailable(f"no agent has announced itself for node {name(node)}")
    return endpoint["Address"], endpoint["Port"]
