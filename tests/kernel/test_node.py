"""Node daemons over a cluster in memory and a real kernel: two nodes, a pod on each."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from testbed.api.kinds import ENDPOINT_SLICE, LEASE, NODE, SERVICE
from testbed.api.objects import Object, annotations, condition, resource_version
from testbed.api.wellknown import (
    CLUSTER_CONFIG_MAP,
    ROLE_LABEL,
    SERVICE_NAME_LABEL,
    SYNCED_ANNOTATION,
    SYSTEM_NAMESPACE,
    UNDERLAY_ANNOTATION,
    VTEP_MAC_ANNOTATION,
)
from testbed.client.fake import FakeClient
from testbed.kernel.sysctl import get_sysctl
from testbed.network import podlink
from testbed.node.daemon import NodeDaemons
from testbed.node.handles import Handles, open_handles
from testbed.topology.load import load_topology
from testbed.topology.plan import plan
from testbed.topology.spec import ClusterSpec, NodeSpec
from testbed.waiting import wait_until_async
from tests.kernel.lab import Lab

TOPOLOGY = Path(__file__).parents[2] / "topologies" / "two-nodes.yaml"
VIP = "10.96.0.77"


@dataclass
class Running:
    """A cluster in memory whose node daemons run."""

    lab: Lab
    client: FakeClient
    spec: ClusterSpec

    @asynccontextmanager
    async def daemons(self) -> AsyncIterator[None]:
        """Node daemons for both nodes, until the block ends."""
        task = asyncio.create_task(NodeDaemons(self.client, self._open).run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def _open(self, name: str) -> Handles | None:
        return open_handles(self.lab.place(name))

    async def proven(self) -> list[Object]:
        """The nodes, once all have proved their network."""

        async def check() -> list[Object] | None:
            nodes = (await self.client.list(NODE)).items
            is_proven = all(condition(node, "NetworkUnavailable").get("status") == "False" for node in nodes)
            return nodes if is_proven else None

        return await wait_until_async(check, 5, "the proof of every node")

    async def ask(self, client: str, host: str) -> str:
        return await asyncio.to_thread(self.lab.ask, client, "tcp", host, 80, timeout_s=0.2)

    async def answered(self, client: str, host: str, answer: str, timeout_s: float) -> None:
        """Wait until that is the answer."""

        async def check() -> bool:
            try:
                return await self.ask(client, host) == answer
            except OSError:
                return False

        await wait_until_async(check, timeout_s, f"{answer!r} from {host}")


@pytest.fixture
async def cluster(lab: Lab) -> Running:
    spec = plan(load_topology(TOPOLOGY).model, runtime="netns")
    client = FakeClient()
    await client.create(config_map(spec))
    for node in spec.nodes:
        lab.plug(node.name, str(node.address))
        await client.create(node_object(node))
        links = lab.links(node.name)
        podlink.ensure_node(links, node, spec.network)
        assert node.pod_cidr
        podlink.attach(
            links,
            lab.place(f"pod-{node.name}"),
            device="vethpod",
            address=node.pod_cidr[2],
            gateway=podlink.gateway(node.pod_cidr),
            mtu=spec.network.pod_mtu,
        )
    return Running(lab, client, spec)


def config_map(spec: ClusterSpec) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CLUSTER_CONFIG_MAP, "namespace": SYSTEM_NAMESPACE},
        "data": {"spec.json": json.dumps(spec.to_json())},
    }


def node_object(node: NodeSpec) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {ROLE_LABEL: node.role},
            "annotations": {UNDERLAY_ANNOTATION: str(node.address.ip), VTEP_MAC_ANNOTATION: node.vtep_mac},
        },
        "spec": {"podCIDR": str(node.pod_cidr)},
    }


def service() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterIP": VIP, "ports": [{"port": 80, "protocol": "TCP"}]},
    }


def slice_of(*addresses: IPv4Address) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "namespace": "default", "labels": {SERVICE_NAME_LABEL: "web"}},
        "addressType": "IPv4",
        "ports": [{"port": 80, "protocol": "TCP"}],
        "endpoints": [{"addresses": [str(address)], "conditions": {"ready": True}} for address in addresses],
    }


def pod(cluster: Running, at: int) -> IPv4Address:
    cidr = cluster.spec.nodes[at].pod_cidr
    assert cidr
    return cidr[2]


async def test_every_node_proves_full_size_packets_to_every_other(cluster: Running) -> None:
    async with cluster.daemons():
        proofs = {node["metadata"]["name"]: condition(node, "NetworkUnavailable") for node in await cluster.proven()}
    assert proofs["a"]["reason"] == "FullSizePacketsArrive"
    assert proofs["a"]["message"] == (
        "1500 bytes on the underlay and 1450 bytes between pods (vxlan) arrive whole at: b"
    )
    assert get_sysctl(cluster.lab.place("a"), "net.ipv4.ip_forward") == "1"


async def test_pods_of_two_nodes_reach_each_other_and_a_service(cluster: Running) -> None:
    await cluster.client.create(service())
    await cluster.client.create(slice_of(pod(cluster, 1)))
    with cluster.lab.serve("pod-b", "tcp", 80, "b"):
        async with cluster.daemons():
            await cluster.answered("pod-a", str(pod(cluster, 1)), f"b {pod(cluster, 0)}", 5)
            await cluster.answered("pod-a", VIP, f"b {pod(cluster, 0)}", 5)
            await cluster.answered("a", VIP, f"b {pod(cluster, 0) - 2}", 5)  # a process of the node: through the tunnel


async def test_the_lease_says_which_version_is_in_the_kernel(cluster: Running) -> None:
    async with cluster.daemons():
        await cluster.client.create(service())
        newest = resource_version(await cluster.client.create(slice_of(pod(cluster, 1))))

        async def check() -> bool:
            leases = (await cluster.client.list(LEASE)).items
            return [int(annotations(lease)[SYNCED_ANNOTATION]) >= newest for lease in leases] == [True, True]

        await wait_until_async(check, 5, "both leases")


async def test_a_changed_endpoint_is_followed_at_once(cluster: Running) -> None:
    await cluster.client.create(service())
    await cluster.client.create(slice_of(pod(cluster, 0)))
    with cluster.lab.serve("pod-b", "tcp", 80, "b"), cluster.lab.serve("pod-a", "tcp", 80, "a"):
        async with cluster.daemons():
            await cluster.answered("b", VIP, f"a {pod(cluster, 1) - 2}", 5)
            await cluster.client.update(slice_of(pod(cluster, 1)))
            await cluster.answered("pod-a", VIP, f"b {pod(cluster, 0)}", 0.5)


async def test_a_node_that_is_removed_leaves_the_others_tables_within_a_second(cluster: Running) -> None:
    async with cluster.daemons():
        await cluster.proven()
        await cluster.client.delete(NODE, "b")
        links = cluster.lab.links("a")

        async def check() -> bool:
            device = "flannel.1"
            return not links.routes(device) and not links.neighbours(device) and not links.fdb(device)

        await wait_until_async(check, 1, "node b to vanish from node a's tables")


async def healed(cluster: Running, hurt: Callable[[], object], timeout_s: float) -> float:
    """Seconds until pod a reaches pod b again, through the pod network and a Service."""
    await cluster.client.create(service())
    await cluster.client.create(slice_of(pod(cluster, 1)))
    answer = f"b {pod(cluster, 0)}"
    with cluster.lab.serve("pod-b", "tcp", 80, "b"):
        async with cluster.daemons():
            await cluster.answered("pod-a", VIP, answer, 5)
            start = time.monotonic()
            hurt()
            await cluster.answered("pod-a", VIP, answer, timeout_s)
            return time.monotonic() - start


@pytest.mark.parametrize("device", ["flannel.1", "cni0"])
async def test_a_device_deleted_by_hand_is_back_within_a_second_with_all_its_peers(
    cluster: Running, device: str
) -> None:
    await healed(cluster, lambda: cluster.lab.links("a").delete_link(device), 1)


async def test_routes_deleted_by_hand_are_back_within_a_second(cluster: Running) -> None:
    await healed(cluster, lambda: cluster.lab.links("a").set_routes("flannel.1", {}), 1)


async def test_rules_flushed_by_a_stranger_are_back_within_the_resync(cluster: Running) -> None:
    await healed(cluster, lambda: cluster.lab.nft("a").load("flush ruleset"), 5)


async def test_a_change_of_backend_replaces_the_tunnel(cluster: Running) -> None:
    network = replace(cluster.spec.network, backend="host-gw")
    async with cluster.daemons():
        await cluster.proven()
        await cluster.client.update(config_map(replace(cluster.spec, network=network)))

        async def check() -> bool:
            nodes = (await cluster.client.list(NODE)).items
            return all("(host-gw)" in condition(node, "NetworkUnavailable")["message"] for node in nodes)

        await wait_until_async(check, 5, "the proof over plain routes")
        assert "flannel.1" not in {link.name for link in cluster.lab.links("a").links()}


async def test_daemons_that_stop_leave_everything_running(cluster: Running) -> None:
    await cluster.client.create(service())
    await cluster.client.create(slice_of(pod(cluster, 1)))
    answer = f"b {pod(cluster, 0)}"
    with cluster.lab.serve("pod-b", "tcp", 80, "b"):
        async with cluster.daemons():
            await cluster.answered("pod-a", VIP, answer, 5)
        assert await cluster.ask("pod-a", VIP) == answer
        async with cluster.daemons():
            for _ in range(20):
                assert await cluster.ask("pod-a", VIP) == answer


async def test_a_service_that_is_deleted_is_refused_no_more_but_gone(cluster: Running) -> None:
    await cluster.client.create(service())
    async with cluster.daemons():
        await cluster.proven()
        await refused(lambda: cluster.ask("pod-a", VIP))
        await cluster.client.delete(SERVICE, "web", "default")
        await cluster.client.create(slice_of(pod(cluster, 1)))
        await cluster.client.delete(ENDPOINT_SLICE, "web-1", "default")

        async def check() -> bool:
            return VIP not in await asyncio.to_thread(cluster.lab.nft("a").list)

        await wait_until_async(check, 2, "the rules to go")


async def refused(ask: Callable[[], Awaitable[Any]]) -> None:
    async def check() -> bool:
        try:
            await ask()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False

    await wait_until_async(check, 2, "a refusal")
