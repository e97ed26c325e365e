from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from testbed.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    EVENT,
    LEASE,
    NODE,
    POD,
    REPLICA_SET,
    SERVICE,
    kind_of,
)
from testbed.api.objects import Key, Object
from testbed.client.fake import FakeClient
from testbed.errors import TimedOut
from testbed.runtime.lifecycle import bring_up
from testbed.runtime.readiness import Seen, lacks, pod_state, summary
from testbed.topology.manifests import Manifest
from testbed.topology.plan import plan
from testbed.topology.schema import Topology
from testbed.topology.source import Source
from testbed.topology.spec import ClusterSpec
from testbed.waiting import wait_until_async


def cluster(*nodes: dict[str, Any]) -> ClusterSpec:
    topology = Topology.model_validate(
        {
            "apiVersion": "testbed/v1",
            "kind": "Topology",
            "metadata": {"name": "t"},
            "spec": {"nodes": nodes or [{"name": "a"}, {"name": "b"}]},
        }
    )
    return plan(topology, runtime="netns")


def obj(kind: str, name: str, version: int = 1, namespace: str = "default", **rest: Any) -> Object:
    api_version = {"Deployment": "apps/v1", "ReplicaSet": "apps/v1", "Lease": "coordination.k8s.io/v1"}
    meta = {"name": name, "resourceVersion": str(version), "namespace": namespace, **rest.pop("metadata", {})}
    if kind == "Node":
        del meta["namespace"]
    if kind == "EndpointSlice":
        return {"apiVersion": "discovery.k8s.io/v1", "kind": kind, "metadata": meta, **rest}
    return {"apiVersion": api_version.get(kind, "v1"), "kind": kind, "metadata": meta, **rest}


def node(name: str, peers: str, *, ready: str = "True", mtu: int = 1450) -> Object:
    return obj(
        "Node",
        name,
        status={
            "conditions": [
                {"type": "Ready", "status": ready, "reason": "AgentReady" if ready == "True" else "AgentSilent"},
                {
                    "type": "NetworkUnavailable",
                    "status": "False",
                    "reason": "FullSizePacketsArrive",
                    "message": f"1500 bytes on the underlay and {mtu} between pods (vxlan) arrive whole at: {peers}",
                },
            ]
        },
    )


def pod(name: str, **rest: Any) -> Object:
    ready = {"phase": "Running", "podIP": "10.244.0.2", "conditions": [{"type": "Ready", "status": "True"}]}
    return obj("Pod", name, **{"status": ready, "spec": {"nodeName": "a"}, **rest})


def lease(name: str, synced: int) -> Object:
    annotations = {"testbed/synced-resource-version": str(synced)}
    return obj("Lease", f"node-daemon-{name}", namespace="kube-system", metadata={"annotations": annotations})


def seen(*objects: Object) -> Seen:
    kinds = (NODE, POD, LEASE, DEPLOYMENT, REPLICA_SET, SERVICE, ENDPOINT_SLICE)
    held: dict[Any, dict[Key, Object]] = {kind: {} for kind in kinds}
    for item in objects:
        meta = item["metadata"]
        held[kind_of(item)][Key(meta.get("namespace", ""), meta["name"])] = item
    return held


NODES = (node("a", "b"), node("b", "a"))
LEASES = (lease("a", 9), lease("b", 9))
WEB = Key("default", "web")


def told(*objects: Object, applied: tuple[Any, ...] = ()) -> list[str]:
    return [str(lack) for lack in lacks(cluster(), applied, seen(*objects))]


def test_a_cluster_whose_nodes_are_proven_and_synced_is_up() -> None:
    assert told(*NODES, *LEASES) == []


def test_nodes_must_be_registered_ready_and_proven_to_every_other() -> None:
    assert told(node("a", "b")) == ["node b: has not registered"]
    assert told(node("a", "b"), node("b", "a", ready="Unknown")) == ["node b: is not Ready (AgentSilent)"]
    assert told(node("a", "nobody"), node("b", "a")) == ["node a: has not yet sent full-size packets to b"]
    assert told(node("a", "b", mtu=1400), node("b", "a")) == [
        "node a: has not yet sent packets of 1450 bytes over vxlan"
    ]
    unproven = obj("Node", "b", status={"conditions": [{"type": "Ready", "status": "True"}]})
    assert told(node("a", "b"), unproven) == ["node b: its network is not proven"]


def test_load_balancers_of_manifests_must_have_an_address_where_there_are_any() -> None:
    spec = cluster()
    balancing = replace(spec, services=replace(spec.services, load_balancer_cidr=IPv4Network("192.0.2.0/24")))
    waiting = obj("Service", "web", spec={"type": "LoadBalancer"})
    given = {**waiting, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    foreign = {**waiting, "spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/other"}}
    for service, missing in ((waiting, 1), (given, 0), (foreign, 0)):
        everything = seen(*NODES, *LEASES, service)
        assert len(lacks(balancing, ((SERVICE, WEB),), everything)) == missing
        assert lacks(spec, ((SERVICE, WEB),), everything) == []


def test_a_node_that_left_the_topology_must_be_gone() -> None:
    assert told(*NODES, node("c", "")) == ["node c: is no longer in the topology, and not removed yet"]


def test_a_pod_on_a_node_that_left_the_topology_must_be_gone() -> None:
    stray = pod("web", spec={"nodeName": "c"})
    assert told(*NODES, *LEASES, stray) == ["pod default/web: is on node c, which is no longer in the topology"]


def test_pods_of_manifests_must_be_ready_and_say_why_they_are_not() -> None:
    waiting = {"name": "c", "state": {"waiting": {"reason": "ErrImagePull", "message": "no image x"}}}
    stuck = pod("web", status={"phase": "Pending", "containerStatuses": [waiting]})
    assert told(*NODES, *LEASES, stuck, applied=((POD, WEB),)) == [
        "pod default/web: on a: container c waits (ErrImagePull: no image x)"
    ]
    assert lacks(cluster(), ((POD, WEB),), seen(*NODES, *LEASES, stuck))[0].is_hopeless
    assert told(*NODES, *LEASES, applied=((POD, WEB),)) == ["pod default/web: does not exist"]
    assert told(*NODES, *LEASES, pod("web"), applied=((POD, WEB),)) == []


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"phase": "Succeeded"}, ""),
        (
            {"phase": "Running", "containerStatuses": [{"name": "c", "state": {"running": {}}}]},
            "runs, and is not ready",
        ),
        ({"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 3}}}]}, "container c ended with 3"),
    ],
)
def test_a_pod_tells_its_state_in_words(status: Object, state: str) -> None:
    assert pod_state(pod("p", status=status)).endswith(state)


def deployment(ready: int, generation: int = 1) -> Object:
    return obj(
        "Deployment",
        "web",
        metadata={"generation": generation},
        spec={"replicas": 2, "selector": {"matchLabels": {"app": "web"}}},
        status={"observedGeneration": 1, "replicas": 2, "readyReplicas": ready, "updatedReplicas": 2},
    )


def test_a_deployment_is_up_when_all_its_newest_pods_are_ready() -> None:
    applied = ((DEPLOYMENT, WEB),)
    assert told(*NODES, *LEASES, deployment(2), applied=applied) == []
    assert told(*NODES, *LEASES, deployment(1), applied=applied) == ["Deployment default/web: 1 of 2 pods are Ready"]
    assert told(*NODES, *LEASES, deployment(2, generation=2), applied=applied)
    unscheduled = pod("web-1", metadata={"labels": {"app": "web"}}, spec={}, status={"phase": "Pending"})
    assert told(*NODES, *LEASES, deployment(1), unscheduled, applied=applied) == ["pod default/web-1: is not scheduled"]


def test_a_service_is_up_when_its_ready_pods_are_endpoints_and_every_kernel_knows() -> None:
    service = obj("Service", "web", 5, spec={"selector": {"app": "web"}})
    web = pod("web-1", metadata={"labels": {"app": "web"}})
    slices = obj(
        "EndpointSlice",
        "web-x",
        10,
        metadata={"labels": {"kubernetes.io/service-name": "web"}},
        endpoints=[{"addresses": ["10.244.0.2"]}],
    )
    applied = ((SERVICE, WEB),)
    assert told(*NODES, *LEASES, service, web, applied=applied) == [
        "Service default/web: 1 of 1 Ready pods are not among its endpoints"
    ]
    assert told(*NODES, *LEASES, service, web, slices, applied=applied) == [
        f"node {name}: its service rules are of version 9, and the newest is 10" for name in ("a", "b")
    ]
    assert told(*NODES, lease("a", 10), lease("b", 11), service, web, slices, applied=applied) == []


def test_a_summary_names_one_and_counts_the_rest() -> None:
    missing = lacks(cluster(), (), seen())
    assert summary(missing) == "waiting: node a: has not registered (and 1 more)"
    assert summary(missing[:1]) == "waiting: node a: has not registered"


async def simulated(spec: ClusterSpec) -> FakeClient:
    client = FakeClient()
    config = obj("ConfigMap", "testbed", namespace="kube-system", data={"spec.json": json.dumps(spec.to_json())})
    await client.create(config)
    return client


async def test_up_returns_as_soon_as_the_last_piece_is_there() -> None:
    spec, said = cluster(), list[str]()
    client = await simulated(spec)
    work = asyncio.create_task(bring_up(client, spec, [], said.append, timeout_s=5))
    for item in (*NODES, *LEASES):
        await asyncio.sleep(0)
        await client.create(item)
    await work
    assert said[:2] == ["waiting for the API server", "applying manifests"]


async def test_up_hands_a_changed_spec_to_the_running_cluster() -> None:
    client = await simulated(cluster({"name": "a"}))
    for item in (*NODES, *LEASES):
        await client.create(item)
    await bring_up(client, cluster(), [], lambda _: None, timeout_s=5)
    held = await client.get(CONFIG_MAP, "testbed", "kube-system")
    assert ClusterSpec.from_json(json.loads(held["data"]["spec.json"])) == cluster()


async def test_a_timeout_names_what_is_missing_and_the_last_event() -> None:
    spec = cluster()
    client = await simulated(spec)
    for item in (*NODES, *LEASES):
        await client.create(item)
    await client.create(
        obj("Event", "e", involvedObject={"name": "web"}, reason="Failed", message="no image", lastTimestamp="2024")
    )
    web = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"nodeName": "a"}}
    with pytest.raises(TimedOut) as raised:
        await bring_up(client, spec, [Manifest(web, POD, Source("m"))], lambda _: None, timeout_s=0.2)
    assert str(raised.value).splitlines()[:2] == [
        "t is not up after 0 s; it lacks:",
        "  pod default/web: on a: Pending; last event: Failed: no image",
    ]
    assert (await client.list(EVENT)).items


async def test_pods_are_applied_only_once_every_node_has_registered() -> None:
    spec, order = cluster(), list[str]()
    client = await simulated(spec)

    async def created() -> bool:
        return "create Pod web" in order

    client.intercept = lambda verb, kind, key: order.append(f"{verb} {kind.kind} {key.name}")
    web = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {}}
    work = asyncio.create_task(bring_up(client, spec, [Manifest(web, POD, Source("m"))], lambda _: None, timeout_s=5))
    for item in (*NODES, *LEASES):
        await asyncio.sleep(0.02)
        await client.create(item)
    await wait_until_async(created, 5, "the pod")
    assert order.index("create Node b") < order.index("create Pod web")
    await client.patch(POD, "web", {"status": pod("web")["status"]}, "default", subresource="status")
    await work


async def test_what_was_just_applied_is_not_judged_by_what_was_seen_before() -> None:
    client = await simulated(cluster())
    for item in (*NODES, *LEASES, deployment(2)):
        await client.create(item)
    await client.patch(DEPLOYMENT, "web", {"status": deployment(2)["status"]}, "default", subresource="status")
    changed = {**deployment(2), "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}}}
    manifest = Manifest({key: changed[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": "web"}},
                        DEPLOYMENT, Source("m"))  # fmt: skip
    with pytest.raises(TimedOut, match="2 of 3 pods are Ready"):
        await bring_up(client, cluster(), [manifest], lambda _: None, timeout_s=0.3)
