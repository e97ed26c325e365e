from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from testbed.api.kinds import ENDPOINT_SLICE, LEASE, NODE, POD, SERVICE
from testbed.api.objects import Object
from testbed.client.fake import FakeClient
from testbed.runtime.overview import overview, rows

NOW = datetime(2024, 1, 1, 0, 1, tzinfo=UTC)


def obj(name: str, namespace: str = "default", **rest: Any) -> Object:
    return {"metadata": {"name": name, "namespace": namespace, **rest.pop("metadata", {})}, **rest}


def lease(name: str, namespace: str, second: int, **annotations: str) -> Object:
    spec = {"renewTime": f"2024-01-01T00:00:{second:02}.000000Z", "leaseDurationSeconds": 40}
    return obj(name, namespace, spec=spec, metadata={"annotations": annotations})


A = obj(
    "a",
    "",
    metadata={"labels": {"testbed/role": "worker"}, "annotations": {"testbed/backend": "vxlan"}},
    spec={"podCIDR": "10.244.0.0/24"},
    status={
        "addresses": [{"type": "InternalIP", "address": "198.18.0.10"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    },
)
CLIENT = obj("client", "", metadata={"labels": {"testbed/role": "external"}}, status={})
READY = obj(
    "web-1",
    metadata={"labels": {"app": "web"}},
    spec={"nodeName": "a"},
    status={
        "phase": "Running",
        "podIP": "10.244.0.2",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "restartCount": 2}],
    },
)
PENDING = obj("web-2", spec={}, status={"phase": "Pending"})
WEB = obj("web", spec={"clusterIP": "10.96.0.9", "ports": [{"port": 80}, {"port": 81, "protocol": "UDP"}]})
SLICE = obj(
    "web-x",
    metadata={"labels": {"kubernetes.io/service-name": "web"}},
    endpoints=[
        {"addresses": ["10.244.0.2"], "conditions": {"ready": True}},
        {"addresses": ["10.244.0.3"], "conditions": {"ready": False}},
    ],
)
LEASES = [
    lease("a", "kube-node-lease", 55),
    lease("node-daemon-a", "kube-system", 5, **{"testbed/synced-resource-version": "17"}),
]


def test_a_cluster_is_shown_row_by_row() -> None:
    seen = rows({NODE: [CLIENT, A], POD: [PENDING, READY], SERVICE: [WEB], ENDPOINT_SLICE: [SLICE], LEASE: LEASES}, NOW)
    assert [(row["name"], row["status"], row["address"]) for row in seen.nodes] == [
        ("a", "Ready", "198.18.0.10"),
        ("client", "NotReady", ""),
    ]
    assert [(row["name"], row["status"], row["restarts"], row["state"]) for row in seen.pods] == [
        ("web-1", "Ready", 2, ""),
        ("web-2", "Pending", 0, "is not scheduled"),
    ]
    assert [(row["ports"], row["endpoints"]) for row in seen.services] == [("80/TCP, 81/UDP", 1)]
    assert [(row["node"], row["daemon"], row["status"], row["rules"]) for row in seen.daemons] == [
        ("a", "agent", "Alive", ""),
        ("a", "node-daemon", "Silent", "17"),
        ("client", "agent", "Unheard", ""),
    ]


async def test_an_empty_cluster_has_no_rows() -> None:
    seen = await overview(FakeClient())
    assert not any((seen.nodes, seen.pods, seen.services, seen.daemons))
