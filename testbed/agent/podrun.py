"""A pod's parts on this host, made and removed: files, sandbox, link, containers. Synchronous; called in threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from testbed.agent.environment import ConfigMapData, PodFacts, environment, expand_all
from testbed.agent.etcfiles import kernel_hostname
from testbed.agent.identity import Identity
from testbed.agent.images import resolve
from testbed.agent.podfiles import PodFiles
from testbed.agent.sandbox import ContainerSpec, ContainerState, PodSandbox, Sandboxes
from testbed.agent.serviceaccount import account_mounts, write_account
from testbed.api.objects import Object, name, namespace, spec, uid
from testbed.errors import NotFound, TestbedError
from testbed.kernel.links import Links
from testbed.network import podlink
from testbed.topology.spec import ClusterSpec, NodeSpec


class CannotStart(TestbedError):
    """Something that a container needs cannot be had; `reason` is Kubernetes' word for it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def status_reason(self) -> str:
        """What the container's state says: a volume that is missing is told by an Event only."""
        return "ContainerCreating" if self.reason == "FailedMount" else self.reason


@dataclass(frozen=True)
class Ground:
    """What a pod stands on: its cluster, its node, and the address that it has there."""

    cluster: ClusterSpec
    node: NodeSpec
    address: IPv4Address

    @property
    def facts(self) -> PodFacts:
        """What the pod's containers may be told."""
        return PodFacts(str(self.address), str(self.node.address.ip), str(self.cluster.services.kubernetes))


class PodRunner:
    """Makes and removes what pods consist of. `links` gives the devices of a wired node (NotFound)."""

    def __init__(
        self, sandboxes: Sandboxes, links: Callable[[str], Links], identity: Identity, config_map: ConfigMapData
    ) -> None:
        self._sandboxes = sandboxes
        self._links = links
        self._identity = identity
        self._config_map = config_map

    def address(self, pod_uid: str) -> IPv4Address | None:
        """The address that the pod was given, perhaps by an agent before this one."""
        return PodFiles(self._identity.state, pod_uid).address()

    def ensure_network(self, pod: Object, ground: Ground) -> PodSandbox | None:
        """The pod's files and, unless it has its node's network, its sandbox and link; again is fine."""
        files = PodFiles(self._identity.state, uid(pod))
        files.write(pod, ground.cluster, ground.node, ground.address)
        write_account(files.directory, pod, self._identity)
        if spec(pod).get("hostNetwork"):
            return None
        links, pod_cidr = self._links(ground.node.name), ground.node.pod_cidr
        if pod_cidr is None:
            raise CannotStart("NoPodNetwork", f"node {ground.node.name} has no pod network; the pod needs hostNetwork")
        called = kernel_hostname(pod, ground.cluster.dns.domain)
        sandbox = self._sandboxes.ensure_pod(uid(pod), namespace(pod), name(pod), called, files.directory)
        podlink.attach(
            links,
            sandbox.netns,
            device=device(uid(pod)),
            address=ground.address,
            gateway=podlink.gateway(pod_cidr),
            mtu=ground.cluster.network.pod_mtu,
        )
        return sandbox

    def write_volumes(self, pod: Object, ground: Ground) -> None:
        """The pod's volumes, as its ConfigMaps are now. CannotStart."""
        try:
            PodFiles(self._identity.state, uid(pod)).write_volumes(pod, ground.facts, self._config_map)
        except NotFound as error:
            raise CannotStart("FailedMount", str(error)) from error

    def start(
        self, pod: Object, container: Mapping[str, Any], ground: Ground, sandbox: PodSandbox | None, attempt: int
    ) -> ContainerState:
        """Start one container, for the n-th time. CannotStart."""
        try:
            wanted = self._container_spec(pod, container, ground, sandbox, attempt)
        except NotFound as error:
            raise CannotStart("CreateContainerConfigError", str(error)) from error
        try:
            return self._sandboxes.start(wanted)
        except NotFound as error:
            raise CannotStart("ErrImagePull", str(error)) from error

    def stop(self, container_id: str, grace_s: float) -> None:
        """See Sandboxes; nothing happens where the container is gone."""
        with suppress(NotFound):
            self._sandboxes.stop(container_id, grace_s)

    def forget(self, container_id: str) -> None:
        """See Sandboxes.delete."""
        self._sandboxes.delete(container_id)

    def remove(self, pod_uid: str, node: str) -> None:
        """The pod's link, containers, sandbox and files; again is fine. `node` may be one that is no more."""
        with suppress(NotFound):
            podlink.detach(self._links(node), device(pod_uid))
        self._sandboxes.delete_pod(pod_uid)
        PodFiles(self._identity.state, pod_uid).delete()

    def _container_spec(
        self, pod: Object, container: Mapping[str, Any], ground: Ground, sandbox: PodSandbox | None, attempt: int
    ) -> ContainerSpec:
        variables = environment(pod, container, ground.facts, self._config_map)
        added = ((container.get("securityContext") or {}).get("capabilities") or {}).get("add") or []
        files = PodFiles(self._identity.state, uid(pod))
        return ContainerSpec(
            pod_uid=uid(pod),
            name=container["name"],
            image=resolve(container["image"], ground.cluster.images),
            netns=sandbox.netns if sandbox else self._node_netns(ground.node.name),
            sandbox=sandbox.handle if sandbox else "",
            node="" if sandbox else ground.node.name,
            hostname=kernel_hostname(pod, ground.cluster.dns.domain) if sandbox else ground.node.name,
            attempt=attempt,
            command=expand_all(container.get("command"), variables),
            args=expand_all(container.get("args"), variables),
            env=variables,
            working_dir=container.get("workingDir") or "",
            mounts=[*files.mounts(container), *account_mounts(files.directory, pod, container)],
            capabilities=[capability.removeprefix("CAP_") for capability in added],
            host_pid=bool(spec(pod).get("hostPID")),
        )

    def _node_netns(self, node: str) -> Path:
        if path := self._sandboxes.place(node):
            return path
        raise NotFound(f"node {node} has no namespace yet")


def device(pod_uid: str) -> str:
    """The name of the node's end of a pod's link."""
    return f"veth{pod_uid[:8]}"
