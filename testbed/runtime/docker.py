"""Clusters on a Docker engine. What exists is found by label, compared with what should be, and made to match.

First start, repair after a crash and a changed spec are one case: `create` makes what is missing, replaces what
differs, starts what has stopped, removes the nodes that are gone. Holders are never touched while they match, so
traffic flows through all of it.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property

import docker

from testbed.agent.docker_engine import connect, socket_path
from testbed.agent.docker_names import AGENT, BEFORE_LABEL, CONTROL_PLANE, PORT_LABEL, SWITCH
from testbed.errors import NotFound
from testbed.runtime import docker_bootstrap as bootstrap
from testbed.runtime import docker_objects as objects
from testbed.runtime.docker_creation import Creation, optional_sysctls
from testbed.runtime.docker_objects import Found
from testbed.runtime.docker_parts import Ground
from testbed.runtime.docker_proof import Before, prove
from testbed.runtime.images import build
from testbed.runtime.protocol import Endpoint, Progress, Removal
from testbed.topology.spec import ClusterSpec
from testbed.waiting import wait_until

REMOVED_WITHIN_S = 60.0


class DockerRuntime:
    """The `Runtime` on the engine that DOCKER_HOST names, or on this machine's."""

    name = "docker"

    @cached_property
    def _engine(self) -> docker.DockerClient:
        return connect()

    def create(self, spec: ClusterSpec, progress: Progress) -> None:
        """Make holders and daemons match the spec. Raises MachineLacks or CommandFailed in one sentence."""
        images = build(progress, self._engine)
        ground = Ground(images, socket_path(), optional_sysctls())
        found = {container.name: container for container in objects.containers(self._engine, spec.name)}
        with ExitStack() as undo:
            if not found:
                undo.callback(self._remove, spec.name)
            progress(f"starting {len(spec.nodes)} nodes and the control plane on docker")
            Creation(self._engine, spec, ground, found).run()
            undo.pop_all()

    def clusters(self) -> list[str]:
        """The names of all clusters that have anything left on the engine."""
        return objects.clusters(self._engine)

    def spec(self, cluster: str) -> ClusterSpec | None:
        """The spec that `create` was last given, where the switch still exists."""
        found = self._switch(cluster)
        return bootstrap.read_spec(self._engine, found.id) if found else None

    def endpoint(self, cluster: str) -> Endpoint:
        """Where the API server's port is published. NotFound where no such cluster runs."""
        found = {container.role: container for container in objects.containers(self._engine, cluster)}
        if SWITCH not in found or CONTROL_PLANE not in found:
            raise NotFound(f"no cluster {cluster} runs on docker")
        files = bootstrap.read(self._engine, found[SWITCH].id)
        url = f"https://127.0.0.1:{found[SWITCH].labels[PORT_LABEL]}"
        return Endpoint(url, files["token"].decode().strip(), files["ca.crt"])

    def delete(self, cluster: str, progress: Progress) -> Removal:
        """Remove every container, network and volume of the cluster, and compare with the machine before."""
        found = self._switch(cluster)
        before = found.labels.get(BEFORE_LABEL) if found else None
        progress(f"removing the containers of {cluster}")
        removed, containers = self._remove(cluster)
        progress("comparing the machine with what it was before")
        proof = prove(self._engine, cluster, Before.from_json(before) if before else None, containers)
        return Removal(tuple(removed), proof.checked, proof.leftovers)

    def _remove(self, cluster: str) -> tuple[list[str], list[str]]:
        """Everything of the cluster; a line for each thing removed, and the ids of the containers.

        First who might make more of it, then the rest, until a look finds none.
        """
        removed: dict[str, Found] = {}

        def take() -> bool:
            found = objects.containers(self._engine, cluster)
            makers = [container for container in found if container.role in (AGENT, CONTROL_PLANE)]
            objects.remove(self._engine, makers or found)
            removed.update((container.id, container) for container in found)
            return not found

        wait_until(take, REMOVED_WITHIN_S, f"the removal of the containers of {cluster}")
        networks, volumes = objects.networks(self._engine, cluster), objects.volumes(self._engine, cluster)
        for name in networks:
            objects.remove_network(self._engine, name)
        for name in volumes:
            objects.remove_volume(self._engine, name)
        lines = [f"container {container.name}" for container in removed.values()]
        lines += [f"network {name}" for name in networks] + [f"volume {name}" for name in volumes]
        return lines, list(removed)

    def _switch(self, cluster: str) -> Found | None:
        found = objects.containers(self._engine, cluster)
        return next((container for container in found if container.role == SWITCH), None)
