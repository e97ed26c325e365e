"""Which containers a cluster consists of before it has any pod, as plain values.

    switch         pause, no network of Docker's: holds the namespace of bridges and router
    agent          joins the switch; wires everything and runs the pods, so it has the engine's socket
    control-plane  on a Docker network of its own, which publishes its port on 127.0.0.1
    node           pause, no network: holds the namespace of one node
    node-daemon    joins its node

Holders hold nothing but a namespace, and live as long as the cluster; what thinks may be replaced at any time. A part
whose `fingerprint` differs from that of the running container is made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from testbed.agent.docker_names import (
    AGENT,
    CONTROL_PLANE,
    DAEMON,
    HOLDERS,
    HOST_LABEL,
    IMAGES_VARIABLE,
    NO_NETWORK,
    NODE,
    NODE_LABEL,
    SWITCH,
    Names,
)
from testbed.agent.wiring import ROUTER
from testbed.api.wellknown import API_PORT
from testbed.network.sysctls import REQUIRED
from testbed.topology.spec import ClusterSpec, NodeSpec

BOOTSTRAP_DIR = "/etc/testbed"
STATE_DIR = "/var/lib/testbed"
ENGINE_SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True)
class Part:
    """One container. `network` is Docker's network mode, or empty where it joins the container named `joins`."""

    name: str
    role: str
    image: str
    command: tuple[str, ...] = ()
    hostname: str = ""
    network: str = ""
    joins: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """Given at creation, because /proc/sys is read-only in a container."""
    binds: tuple[str, ...] = ()
    """`volume-or-path:path[:ro]`"""
    publishes: int = 0
    """A port of the container that is published on a free port of 127.0.0.1."""
    sees_host_processes: bool = False

    @property
    def fingerprint(self) -> str:
        """Changes with whatever makes it another container. A holder runs nothing, so its image may age."""
        what: dict[str, Any] = asdict(self)
        if self.role in HOLDERS:
            del what["image"]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Ground:
    """What the parts stand on: the tags of the images, and the engine that runs them."""

    images: Mapping[str, str]
    socket: str
    """The engine's socket on its own machine."""
    optional_sysctls: Mapping[str, str]
    """Those that the engine's kernel has, of the ones that exist only where their module is loaded."""


def switch(spec: ClusterSpec, ground: Ground) -> Part:
    """The holder of the switch. Through it the bootstrap directory is written, and found again by a later command."""
    names = Names(spec.name)
    return Part(
        names.place(SWITCH),
        SWITCH,
        ground.images["testbed/pause"],
        hostname=SWITCH,
        network=NO_NETWORK,
        sysctls={**ROUTER, **ground.optional_sysctls},
        binds=(f"{names.bootstrap}:{BOOTSTRAP_DIR}",),
    )


def chains(spec: ClusterSpec, ground: Ground) -> list[tuple[Part, ...]]:
    """All parts: chains may be started side by side, and within one each part joins the one before it."""
    nodes = [_node_chain(spec, node, ground) for node in spec.nodes]
    return [(_control_plane(spec, ground),), (switch(spec, ground), _agent(spec, ground)), *nodes]


def _control_plane(spec: ClusterSpec, ground: Ground) -> Part:
    names = Names(spec.name)
    return Part(
        names.place(CONTROL_PLANE),
        CONTROL_PLANE,
        ground.images["testbed/daemon"],
        command=("control-plane", "--dir", BOOTSTRAP_DIR, "--data", STATE_DIR),
        hostname="control-plane",
        network=names.network,
        binds=(f"{names.bootstrap}:{BOOTSTRAP_DIR}:ro", f"{names.store}:{STATE_DIR}"),
        publishes=API_PORT,
    )


def _agent(spec: ClusterSpec, ground: Ground) -> Part:
    names, host = Names(spec.name), spec.hosts[0].name
    command = ("agent", "--dir", BOOTSTRAP_DIR, "--host", host, "--runtime", "docker", "--state", STATE_DIR)
    return Part(
        names.container("agent"),
        AGENT,
        ground.images["testbed/daemon"],
        command=(*command, "--api", _api(spec)),
        joins=names.place(SWITCH),
        labels={HOST_LABEL: host},
        environment={IMAGES_VARIABLE: json.dumps(dict(ground.images), sort_keys=True)},
        # setns into other containers' namespaces (SYS_ADMIN), found through /proc (SYS_PTRACE); devices in them; the
        # files of a pod belong to whom the pod says.
        capabilities=("NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "DAC_OVERRIDE", "CHOWN", "FOWNER", "KILL"),
        binds=(
            f"{names.bootstrap}:{BOOTSTRAP_DIR}:ro",
            f"{names.pods}:{STATE_DIR}",
            f"{ground.socket}:{ENGINE_SOCKET}",
        ),
        sees_host_processes=True,
    )


def _node_chain(spec: ClusterSpec, node: NodeSpec, ground: Ground) -> tuple[Part, ...]:
    names = Names(spec.name)
    labels = {NODE_LABEL: node.name, HOST_LABEL: node.host}
    holder = Part(
        names.place(node.name),
        NODE,
        ground.images["testbed/pause"],
        hostname=node.name,
        network=NO_NETWORK,
        labels=labels,
        sysctls={} if node.is_external else {**REQUIRED, **ground.optional_sysctls},
    )
    if node.is_external:
        return (holder,)
    daemon = Part(
        names.container("daemon", node.name),
        DAEMON,
        ground.images["testbed/daemon"],
        command=("node-daemon", "--dir", BOOTSTRAP_DIR, "--node", node.name, "--api", _api(spec)),
        joins=holder.name,
        labels=labels,
        capabilities=("NET_ADMIN", "NET_RAW"),
        binds=(f"{names.bootstrap}:{BOOTSTRAP_DIR}:ro",),
    )
    return holder, daemon


def _api(spec: ClusterSpec) -> str:
    return f"https://{spec.underlay.control_plane}:{API_PORT}"
