"""One run of `create`: everything side by side, each container as soon as what it needs is there.

    network ─────────────▶ control plane
    bootstrap directory ─▶ every daemon      (written through the switch, which need not run for that)
    switch ──────────────▶ agent
    node ────────────────▶ its node daemon

An engine on two cores starts about ten containers a second, and the slowest of all is the control plane's, with its
network and published port: nothing may keep it waiting.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import docker

from testbed.agent.docker_names import BEFORE_LABEL, CLUSTER_LABEL, DAEMON, HOLDERS, NODE, PORT_LABEL, SWITCH, Names
from testbed.agent.wiring import BALANCING, HASH_FIELDS
from testbed.kernel.sysctl import has_sysctl
from testbed.network.sysctls import WHERE_PRESENT
from testbed.proxy.ipvs import SYSCTLS as IPVS_SYSCTLS
from testbed.runtime import docker_bootstrap as bootstrap
from testbed.runtime import docker_objects as objects
from testbed.runtime.docker_objects import Found
from testbed.runtime.docker_parts import Ground, Part, chains, switch
from testbed.runtime.docker_proof import Before
from testbed.topology.spec import ClusterSpec


@dataclass(frozen=True)
class Creation:
    """Makes the containers that were `found`, by name, match the spec. CommandFailed."""

    engine: docker.DockerClient
    spec: ClusterSpec
    ground: Ground
    found: Mapping[str, Found]

    def run(self) -> None:
        """Until all of them run; what fails first is raised when the others have ended."""
        wanted, kept = chains(self.spec, self.ground), self._kept()
        with ThreadPoolExecutor(objects.WORKERS) as pool:
            # These two wait for nobody and are begun first, so the chains that wait for them never starve them.
            network, prepared = pool.submit(self._ensure_network), pool.submit(self._prepare, kept)
            making = [pool.submit(self._make_chain, chain, kept, network, prepared) for chain in wanted]
            names = {part.name for chain in wanted for part in chain}
            for task in (*making, pool.submit(self._remove_nodes_but, names)):
                task.result()

    def _kept(self) -> dict[str, str]:
        """What is decided when the switch is first made, and stays for as long as the cluster lives: its labels."""
        exists = self.found.get(Names(self.spec.name).place(SWITCH))
        if exists:
            return {label: exists.labels[label] for label in (BEFORE_LABEL, PORT_LABEL)}
        return {BEFORE_LABEL: Before.seen_now(self.engine).to_json(), PORT_LABEL: str(free_port())}

    def _ensure_network(self) -> None:
        objects.ensure_network(self.engine, Names(self.spec.name).network, self._labels())

    def _prepare(self, kept: Mapping[str, str]) -> Found:
        """The switch, not yet running where it is new, with the bootstrap directory filled."""
        for volume in Names(self.spec.name).volumes:
            objects.ensure_volume(self.engine, volume, self._labels())
        part = switch(self.spec, self.ground)
        container = objects.ensure(self.engine, part, self.found.get(part.name), {**self._labels(), **kept})
        bootstrap.write(self.engine, container.id, self.spec)
        return container

    def _make_chain(
        self, chain: Iterable[Part], kept: Mapping[str, str], network: Future[None], prepared: Future[Found]
    ) -> None:
        holder = ""
        for part in chain:
            if part.role == SWITCH:
                container = prepared.result()
            else:
                if part.publishes:
                    network.result()
                exists, port = self.found.get(part.name), int(kept[PORT_LABEL])
                container = objects.ensure(self.engine, part, exists, self._labels(), holder=holder, port=port)
                if part.role not in HOLDERS:
                    prepared.result()
            objects.start(self.engine, container)
            holder = container.id

    def _remove_nodes_but(self, wanted: Collection[str]) -> None:
        nodes = [container for container in self.found.values() if container.role in (NODE, DAEMON)]
        objects.remove(self.engine, [container for container in nodes if container.name not in wanted])

    def _labels(self) -> dict[str, str]:
        return {CLUSTER_LABEL: self.spec.name}


def optional_sysctls() -> dict[str, str]:
    """Those of the switch, the pod network and proxy mode ipvs that not every kernel has, and this one does.

    Given to every node, whatever its proxy: a change of mode must not need another container.
    """
    of_ipvs = IPVS_SYSCTLS if has_sysctl("net.ipv4.vs") else {}
    of_switch = BALANCING if has_sysctl(HASH_FIELDS) else {}
    wanted = {**of_switch, **WHERE_PRESENT, **of_ipvs}
    return {name: value for name, value in wanted.items() if has_sysctl(name)}


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
