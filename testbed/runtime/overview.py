"""What a cluster is like at this moment, as plain rows: nodes, pods, services, daemons. Pure, but for one reader."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from testbed.api import objects
from testbed.api.kinds import ENDPOINT_SLICE, LEASE, NODE, POD, SERVICE, Kind
from testbed.api.objects import Object, condition, labels, name, namespace, parse_time, spec, status
from testbed.api.wellknown import (
    BACKEND_ANNOTATION,
    DAEMON_LEASE_PREFIX,
    LEASE_NAMESPACE,
    ROLE_LABEL,
    SERVICE_NAME_LABEL,
    SYNCED_ANNOTATION,
    SYSTEM_NAMESPACE,
)
from testbed.client.protocol import Client
from testbed.runtime.readiness import pod_state

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Overview:
    """The cluster in rows that print as they are; keys are the columns."""

    nodes: Sequence[Row]
    pods: Sequence[Row]
    services: Sequence[Row]
    daemons: Sequence[Row]


async def overview(client: Client) -> Overview:
    """Read everything once, side by side, and put it into rows."""
    kinds = (NODE, POD, SERVICE, ENDPOINT_SLICE, LEASE)
    lists = await asyncio.gather(*(client.list(kind) for kind in kinds))
    return rows({kind: listed.items for kind, listed in zip(kinds, lists, strict=True)}, datetime.now(UTC))


def rows(held: Mapping[Kind, Sequence[Object]], now: datetime) -> Overview:
    """The overview of these objects at that time."""
    ready = _ready_endpoints(held[ENDPOINT_SLICE])
    leases = {(namespace(lease), name(lease)): lease for lease in held[LEASE]}
    return Overview(
        nodes=[_node(node) for node in sorted(held[NODE], key=name)],
        pods=[_pod(pod) for pod in sorted(held[POD], key=objects.key)],
        services=[_service(service, ready) for service in sorted(held[SERVICE], key=objects.key)],
        daemons=[row for node in sorted(held[NODE], key=name) for row in _daemons(node, leases, now)],
    )


def _node(node: Object) -> Row:
    proof = condition(node, "NetworkUnavailable")
    role = labels(node).get(ROLE_LABEL, "")
    addresses = {entry.get("type"): entry.get("address") for entry in status(node).get("addresses") or []}
    return {
        "name": name(node),
        "status": "Ready" if objects.is_ready(node) else "NotReady",
        "role": role,
        "address": addresses.get("InternalIP", ""),
        "pod cidr": spec(node).get("podCIDR", ""),
        "backend": "" if role == "external" else objects.annotations(node).get(BACKEND_ANNOTATION, ""),
        "network": proof.get("message") or proof.get("reason") or "",
    }


def _pod(pod: Object) -> Row:
    containers = status(pod).get("containerStatuses") or []
    phase = status(pod).get("phase") or "Pending"
    state = pod_state(pod)
    return {
        "namespace": namespace(pod),
        "name": name(pod),
        "status": ("Succeeded" if phase == "Succeeded" else "Ready") if not state else phase,
        "restarts": sum(container.get("restartCount") or 0 for container in containers),
        "address": status(pod).get("podIP", ""),
        "node": spec(pod).get("nodeName", ""),
        "state": state,
    }


def _service(service: Object, ready: Mapping[tuple[str, str], int]) -> Row:
    ports = spec(service).get("ports") or []
    return {
        "namespace": namespace(service),
        "name": name(service),
        "type": spec(service).get("type", "ClusterIP"),
        "address": spec(service).get("clusterIP", ""),
        "ports": ", ".join(f"{port.get('port')}/{port.get('protocol', 'TCP')}" for port in ports),
        "endpoints": ready.get((namespace(service), name(service)), 0),
    }


def _ready_endpoints(slices: Iterable[Object]) -> dict[tuple[str, str], int]:
    addresses: dict[tuple[str, str], set[str]] = {}
    for endpoint_slice in slices:
        service = (namespace(endpoint_slice), labels(endpoint_slice).get(SERVICE_NAME_LABEL, ""))
        for endpoint in endpoint_slice.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                addresses.setdefault(service, set()).update(endpoint.get("addresses") or [])
    return {service: len(found) for service, found in addresses.items()}


def _daemons(node: Object, leases: Mapping[tuple[str, str], Object], now: datetime) -> Iterable[Row]:
    """The agent by the node's lease, and on workers the node daemon by its own."""
    yield _daemon(name(node), "agent", leases.get((LEASE_NAMESPACE, name(node))), now)
    if labels(node).get(ROLE_LABEL) != "external":
        yield _daemon(name(node), "node-daemon", leases.get((SYSTEM_NAMESPACE, DAEMON_LEASE_PREFIX + name(node))), now)


def _daemon(node: str, daemon: str, lease: Object | None, now: datetime) -> Row:
    if lease is None:
        return {"node": node, "daemon": daemon, "status": "Unheard", "renewed": "never", "rules": ""}
    renewed = spec(lease).get("renewTime")
    age_s = (now - parse_time(renewed)).total_seconds() if renewed else None
    limit_s = spec(lease).get("leaseDurationSeconds") or 40
    return {
        "node": node,
        "daemon": daemon,
        "status": "Alive" if age_s is None or age_s <= limit_s else "Silent",
        "renewed": "" if age_s is None else f"{max(age_s, 0):.0f} s ago",
        "rules": objects.annotations(lease).get(SYNCED_ANNOTATION, ""),
    }
