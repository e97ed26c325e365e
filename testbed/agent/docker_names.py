"""The labels and names by which everything of a cluster is found on a Docker engine; there is no other record of it."""

from __future__ import annotations

from dataclasses import dataclass

CLUSTER_LABEL = "testbed"
ROLE_LABEL = "testbed.role"
NODE_LABEL = "testbed.node"
HOST_LABEL = "testbed.host"
FINGERPRINT_LABEL = "testbed.fingerprint"
PORT_LABEL = "testbed.port"
"""On the switch: the control plane's port on 127.0.0.1, the same for as long as the cluster lives."""
BEFORE_LABEL = "testbed.before"
"""On the switch: what the machine was like before the cluster came, for `down` to compare with."""
POD_LABEL = "testbed.pod"
"""On the pause container and the containers of a pod: its uid."""
POD_NAMESPACE_LABEL = "testbed.pod-namespace"
POD_NAME_LABEL = "testbed.pod-name"
CONTAINER_LABEL = "testbed.container"
"""On a container of a pod: its name there."""
ATTEMPT_LABEL = "testbed.attempt"
IMAGE_LABEL = "testbed.container-image"
"""The image as the pod names it."""

SWITCH, AGENT, CONTROL_PLANE, NODE, DAEMON = "switch", "agent", "control-plane", "node", "node-daemon"
POD, CONTAINER = "pod", "container"
HOLDERS = (SWITCH, NODE)
"""What holds a network namespace for a part of the testbed itself to join."""

NO_NETWORK = "none"
"""Docker's network mode of a holder, always together with `network_disabled`: then runc makes the namespace, with `lo`
up, and the engine leaves out a network sandbox of its own, which is nearly half of the start of a container."""
UNCONFINED = "seccomp=unconfined"
"""For pods because it is Kubernetes' default (seccompProfile Unconfined), and a filter would cost every system call
that is measured; for holders because nothing in them needs confining, and loading a filter takes 12 ms a container."""
IMAGES_VARIABLE = "TESTBED_IMAGES"
"""In the agent's environment: what an image name without a tag means, as JSON."""


@dataclass(frozen=True)
class Names:
    """The names of a cluster's Docker objects. The underscore occurs in no name of Kubernetes', so none can clash."""

    cluster: str

    def container(self, *what: str) -> str:
        """`testbed_two-nodes_node_a`"""
        return "_".join(("testbed", self.cluster, *what))

    def place(self, name: str) -> str:
        """The container that holds the switch, the control plane, or the node of that name."""
        return self.container(name) if name in (SWITCH, CONTROL_PLANE) else self.container("node", name)

    @property
    def network(self) -> str:
        """The control plane's own Docker network."""
        return self.container("network")

    @property
    def bootstrap(self) -> str:
        """The volume of the bootstrap directory."""
        return self.container("bootstrap")

    @property
    def store(self) -> str:
        """The volume of the API server's database."""
        return self.container("store")

    @property
    def pods(self) -> str:
        """The volume of the files that the agent makes for pods."""
        return self.container("pods")

    @property
    def volumes(self) -> tuple[str, str, str]:
        """All volumes."""
        return self.bootstrap, self.store, self.pods


def of_cluster(cluster: str, **also: str) -> dict[str, list[str]]:
    """The engine's filter for what carries the cluster's label, and labels beside it: `role="pod"`."""
    return {"label": [f"{CLUSTER_LABEL}={cluster}", *(f"testbed.{name}={value}" for name, value in also.items())]}
