"""A cluster's Docker objects: found by label, made to match a part, removed. Nothing here knows what they are for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.types import LogConfig

from testbed.agent.docker_engine import explained
from testbed.agent.docker_names import (
    CLUSTER_LABEL,
    FINGERPRINT_LABEL,
    HOLDERS,
    NO_NETWORK,
    ROLE_LABEL,
    UNCONFINED,
    of_cluster,
)
from testbed.runtime.docker_parts import Part

WORKERS = 6
"""Containers that start or end side by side: measured, more does not make a two-core engine faster."""
LOGS = LogConfig(type="json-file", config={"max-size": "20m"})
SILENT = LogConfig(type="none")
GOING = (404, 409)
"""A removal that somebody else has finished, or has under way."""


@dataclass(frozen=True)
class Found:
    """A container that exists, running or not."""

    id: str
    name: str
    is_running: bool
    labels: Mapping[str, str]
    network_mode: str

    @property
    def role(self) -> str:
        """What it is in its cluster."""
        return self.labels.get(ROLE_LABEL, "")

    def is_as_wanted(self, part: Part, holder: str) -> bool:
        """Whether it is this part, joined (if it joins one) to the container `holder`."""
        is_joined = not part.joins or self.network_mode == f"container:{holder}"
        return self.labels.get(FINGERPRINT_LABEL) == part.fingerprint and is_joined


def containers(engine: docker.DockerClient, cluster: str) -> list[Found]:
    """Every container of the cluster, pods and all."""
    with explained(f"listing the containers of {cluster}"):
        listed = engine.api.containers(all=True, filters=of_cluster(cluster))
    return [
        Found(
            container["Id"],
            container["Names"][0].lstrip("/") if container["Names"] else container["Id"][:12],
            container["State"] == "running",
            container["Labels"],
            container["HostConfig"]["NetworkMode"],
        )
        for container in listed
    ]


def ensure(
    engine: docker.DockerClient,
    part: Part,
    found: Found | None,
    labels: Mapping[str, str],
    *,
    holder: str = "",
    port: int = 0,
) -> Found:
    """A container that is this part, running or not: the one found, or a new one in its place.

    `holder` is the id of the container it joins; `port` of 127.0.0.1 leads to what it publishes.
    """
    if found and found.is_as_wanted(part, holder):
        return found
    if found:
        remove(engine, [found])
    own = {ROLE_LABEL: part.role, FINGERPRINT_LABEL: part.fingerprint, **part.labels, **labels}
    mode = f"container:{holder}" if part.joins else part.network
    with explained(f"creating container {part.name}"):
        created: dict[str, Any] = engine.api.create_container(
            part.image,
            command=list(part.command) or None,
            name=part.name,
            hostname=part.hostname or None,
            labels=own,
            environment=dict(part.environment),
            ports=[part.publishes] if part.publishes else None,
            network_disabled=part.network == NO_NETWORK,
            host_config=_host_config(engine, part, mode, port),
        )
    return Found(str(created["Id"]), part.name, False, own, mode)


def start(engine: docker.DockerClient, container: Found) -> None:
    """The container runs."""
    if not container.is_running:
        with explained(f"starting container {container.name}"):
            engine.api.start(container.id)


def remove(engine: docker.DockerClient, doomed: Iterable[Found]) -> None:
    """No such containers, with what they had written; side by side."""

    def take(container: Found) -> None:
        with explained(f"removing container {container.name}"):
            try:
                engine.api.remove_container(container.id, force=True, v=True)
            except APIError as error:
                if error.status_code not in GOING:
                    raise

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(take, doomed))


def ensure_network(engine: docker.DockerClient, name: str, labels: Mapping[str, str]) -> None:
    """A bridge network of Docker's by this name."""
    with explained(f"network {name}"):
        if not engine.api.networks(names=[name]):
            engine.api.create_network(name, driver="bridge", labels=dict(labels), check_duplicate=True)


def ensure_volume(engine: docker.DockerClient, name: str, labels: Mapping[str, str]) -> None:
    """A volume of this name."""
    with explained(f"volume {name}"):
        engine.api.create_volume(name, labels=dict(labels))


def networks(engine: docker.DockerClient, cluster: str) -> list[str]:
    """The names of the cluster's networks."""
    with explained("listing networks"):
        return [network["Name"] for network in engine.api.networks(filters=of_cluster(cluster))]


def volumes(engine: docker.DockerClient, cluster: str) -> list[str]:
    """The names of the cluster's volumes."""
    with explained("listing volumes"):
        return [volume["Name"] for volume in engine.api.volumes(filters=of_cluster(cluster))["Volumes"] or ()]


def remove_network(engine: docker.DockerClient, name: str) -> None:
    """No such network."""
    with explained(f"removing network {name}"):
        try:
            engine.api.remove_network(name)
        except NotFound:
            return


def remove_volume(engine: docker.DockerClient, name: str) -> None:
    """No such volume."""
    with explained(f"removing volume {name}"):
        try:
            engine.api.remove_volume(name)
        except NotFound:
            return


def clusters(engine: docker.DockerClient) -> list[str]:
    """The names of all clusters of which the engine has anything: a container, a volume, a network."""
    with explained("looking for clusters"):
        has_label = {"label": CLUSTER_LABEL}
        found = [
            *engine.api.containers(all=True, filters=has_label),
            *(engine.api.volumes(filters=has_label)["Volumes"] or ()),
            *engine.api.networks(filters=has_label),
        ]
    return sorted({one["Labels"][CLUSTER_LABEL] for one in found})


def _host_config(engine: docker.DockerClient, part: Part, mode: str, port: int) -> dict[str, Any]:
    config: dict[str, Any] = engine.api.create_host_config(
        network_mode=mode,
        restart_policy={"Name": "always"},
        cap_drop=["ALL"],
        cap_add=list(part.capabilities),
        security_opt=_security(engine, part),
        sysctls=dict(part.sysctls),
        binds=list(part.binds),
        pid_mode="host" if part.sees_host_processes else None,
        port_bindings={part.publishes: ("127.0.0.1", port)} if part.publishes else None,
        log_config=LOGS if part.command else SILENT,
    )
    return config


def _security(engine: docker.DockerClient, part: Part) -> list[str]:
    """AppArmor's profile for containers keeps even the capable out of other containers' namespaces, and /proc."""
    options = ["no-new-privileges"]
    if part.role in HOLDERS:
        options.append(UNCONFINED)
    if part.sees_host_processes and "name=apparmor" in (engine.api.info()["SecurityOptions"] or ()):
        options.append("apparmor=unconfined")
    return options
