"""The objects that rows create: netexec pods, idle pods on a node's own network, Services."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.api.objects import Object

IMAGE = os.environ.get("CONFORMANCE_IMAGE", "testbed/netexec")
"""For a foreign cluster: where it can pull our netexec image from."""
HTTP, UDP = 8080, 8081
IDLE = ["python3", "-c", "import signal; signal.sigwait([signal.SIGTERM])"]
STREAM = (Path(__file__).parents[1] / "e2e/stream.py").read_text()
EXTERNAL_TAINT = {"key": "testbed/external", "operator": "Exists"}


@dataclass(frozen=True)
class Port:
    """A port of a Service; an empty target is the same number."""

    number: int
    target: int | str = 0
    protocol: str = "TCP"
    name: str = ""


def container(name: str = "netexec", **fields: Any) -> Object:
    """A container of the netexec image."""
    return {"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", **fields}


def pod(
    name: str,
    containers: Sequence[Object],
    *,
    node: str = "",
    labels: Mapping[str, str] | None = None,
    host_network: bool = False,
    grace_s: int = 1,
) -> Object:
    """A Pod of any containers."""
    spec: Object = {"containers": list(containers), "terminationGracePeriodSeconds": grace_s}
    if node:
        spec["nodeName"] = node
    if host_network:
        spec |= {"hostNetwork": True, "tolerations": [EXTERNAL_TAINT]}
    meta = {"name": name, "labels": {"pod": name, **(labels or {})}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def server(
    name: str,
    node: str = "",
    labels: Mapping[str, str] | None = None,
    *,
    host_network: bool = False,
    port_names: tuple[str, str] = ("http", "udp"),
    ports: tuple[int, int] = (HTTP, UDP),
    lingers_s: int = 0,
    gets_ready: bool = True,
) -> Object:
    """A netexec pod that is Ready when it answers, or never. For `lingers_s` after its deletion it goes on serving."""
    http, udp = ports
    listed = [
        {"name": port_names[0], "containerPort": http},
        {"name": port_names[1], "containerPort": udp, "protocol": "UDP"},
    ]
    probe = {"httpGet": {"path": "/healthz" if gets_ready else "/nowhere", "port": http}, "periodSeconds": 1}
    command = ["netexec", f"--http-port={http}", f"--udp-port={udp}", f"--delay-shutdown={lingers_s}"]
    return pod(
        name,
        [container(command=command, ports=listed, readinessProbe=probe)],
        node=node,
        labels=labels,
        host_network=host_network,
        grace_s=lingers_s + 1,
    )


def idle(name: str, node: str, *, host_network: bool = False, capabilities: Sequence[str] = ()) -> Object:
    """A pod that waits to be asked by exec."""
    security = {"capabilities": {"add": list(capabilities)}}
    return pod(name, [container(command=IDLE, securityContext=security)], node=node, host_network=host_network)


def stream(name: str, node: str, *words: str) -> Object:
    """A pod that runs tests/e2e/stream.py and is never restarted."""
    doc = pod(name, [container(command=["python3", "-u", "-c", STREAM, *words])], node=node)
    doc["spec"]["restartPolicy"] = "Never"
    return doc


def service(name: str, selector: Mapping[str, str], *ports: Port, **fields: Any) -> Object:
    """A Service; `fields` are more of its spec, in Kubernetes' own names. Without a selector it has none."""
    listed = [
        {
            "name": port.name or f"{port.protocol.lower()}-{port.number}",
            "port": port.number,
            "targetPort": port.target or port.number,
            "protocol": port.protocol,
        }
        for port in ports
    ]
    spec: Object = {"ports": listed, **fields}
    if selector:
        spec["selector"] = dict(selector)
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def node_port(service: Object, index: int = 0) -> int:
    """The node port of a Service's port, as the API server gave it."""
    return int(service["spec"]["ports"][index]["nodePort"])


def affinity(timeout_s: int = 10800) -> Object:
    """Session affinity, as a part of a Service's spec; three hours is Kubernetes' default."""
    return {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": timeout_s}}}


def endpoint_slice(name: str, service: str, endpoints: Sequence[Object], *ports: Port) -> Object:
    """An EndpointSlice written by hand. Ports have the names that `service` gives to the Service's."""
    listed = [
        {
            "name": port.name or f"{port.protocol.lower()}-{port.number}",
            "port": port.target,
            "protocol": port.protocol,
        }
        for port in ports
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": listed,
    }
