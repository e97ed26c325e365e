"""Pods on a Docker engine: the sandbox that asks the engine of its own host, from inside the agent's container.

A pod is a pause container without a network of Docker's, and containers that join it; a hostNetwork pod's containers
join its node. What there is stands in labels, so an agent that starts anew finds everything.

A container that ends takes its namespace along, and one that restarts gets a new one with only `lo`. So when the switch
or a node has been killed, whoever had joined it is left in the old namespace: `_rejoin` restarts them into the new one,
the node daemon and hostNetwork pods after their node, the agent itself after the switch. The rest is the agent's: it
wires what has another namespace than before, and starts the containers of a pod anew whose sandbox has.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from io import RawIOBase
from pathlib import Path
from typing import Any

from docker.errors import APIError, ImageNotFound
from docker.types import LogConfig

from testbed.agent.docker_engine import DEFAULT_SOCKET, connect, explained
from testbed.agent.docker_exec import DockerExec
from testbed.agent.docker_log import DockerLog
from testbed.agent.docker_looks import Looks
from testbed.agent.docker_names import (
    AGENT,
    ATTEMPT_LABEL,
    CLUSTER_LABEL,
    CONTAINER,
    CONTAINER_LABEL,
    DAEMON,
    HOLDERS,
    IMAGE_LABEL,
    IMAGES_VARIABLE,
    NO_NETWORK,
    POD,
    POD_LABEL,
    POD_NAME_LABEL,
    POD_NAMESPACE_LABEL,
    ROLE_LABEL,
    UNCONFINED,
    Names,
    of_cluster,
)
from testbed.agent.sandbox import ContainerSpec, ContainerState, ExecSession, Mount, PodSandbox
from testbed.errors import NotFound
from testbed.kernel import netns as namespaces

PROC = Path("/proc")
PAUSE = "testbed/pause"
JOINED = "container:"
GONE, CONFLICT = 404, 409
LONGEST_WAIT_S = 60.0
"""Less than the silence after which the client gives a stream up."""
LOGS = LogConfig(type="json-file", config={"max-size": "50m"})
SILENT = LogConfig(type="none")


class DockerSandboxes:
    """agent.sandbox.Sandboxes over the engine; `state` is where the volume of pods' files is mounted in the agent."""

    def __init__(self, cluster: str, state: Path) -> None:
        self._cluster = cluster
        self._names = Names(cluster)
        self._engine = connect(f"unix://{DEFAULT_SOCKET}")
        self._looks = Looks(self._engine)
        self._images: Mapping[str, str] = json.loads(os.environ.get(IMAGES_VARIABLE, "{}"))
        self._state = state
        with explained("looking for the volume of pods"):
            self._state_on_host = Path(self._engine.api.inspect_volume(self._names.pods)["Mountpoint"])
        self._looked_ns = self._heard_ns = time.time_ns()
        self._rejoin()

    def place(self, name: str) -> Path | None:
        """The namespace of the running holder; another path after it has restarted."""
        return _netns(self._looks.at(self._names.place(name)))

    def ensure_pod(self, pod_uid: str, namespace: str, name: str, hostname: str, files: Path) -> PodSandbox:  # noqa: ARG002 - containers get the files as mounts
        """The pod's pause container, running."""
        container = self._names.container(POD, namespace, name, pod_uid)
        labels = {**self._labels(POD, pod_uid), POD_NAMESPACE_LABEL: namespace, POD_NAME_LABEL: name}
        host_config = self._engine.api.create_host_config(
            network_mode=NO_NETWORK,
            restart_policy={"Name": "always"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges", UNCONFINED],
            log_config=SILENT,
        )
        with explained(f"the sandbox of pod {namespace}/{name}"):
            found = self._create(
                container,
                image=self._reference(PAUSE),
                hostname=hostname,
                labels=labels,
                network_disabled=True,
                host_config=host_config,
            )
            self._engine.api.start(found)
        look = self._looks.at(found)
        if look is None or (netns := _netns(look)) is None:
            raise NotFound(f"the sandbox of pod {namespace}/{name} ended as soon as it began")
        return PodSandbox(pod_uid, namespace, name, netns, found)

    def pods(self) -> list[PodSandbox]:
        """Those whose pause container runs."""
        running = {listed["Id"]: listed["Labels"] for listed in self._list(role=POD)}
        looks = ((self._looks.at(container), container, labels) for container, labels in running.items())
        return [
            PodSandbox(labels[POD_LABEL], labels[POD_NAMESPACE_LABEL], labels[POD_NAME_LABEL], netns, container)
            for look, container, labels in looks
            if (netns := _netns(look))
        ]

    def delete_pod(self, pod_uid: str) -> None:
        """The containers first, then the namespace."""
        of_pod = self._list(everything=True, pod=pod_uid)
        for listed in sorted(of_pod, key=lambda listed: listed["Labels"][ROLE_LABEL]):
            self.delete(listed["Id"])

    def containers(self) -> list[ContainerState]:
        """Those of pods, by their labels; one that is being created is not there yet."""
        self._looked_ns = time.time_ns()
        listed = self._list(everything=True, role=CONTAINER)
        looks = [self._looks.at(one["Id"], is_running=one["State"] == "running") for one in listed]
        self._looks.forget_but({one["Id"] for one in listed})
        return [_state(look) for look in looks if look and _has_begun(look)]

    def start(self, spec: ContainerSpec) -> ContainerState:
        """Create and start; the engine is asked to pull an image that it has not."""
        name = self._names.container(spec.name, spec.pod_uid, str(spec.attempt))
        with explained(f"container {spec.name}"):
            container = self._create_pulling(name, spec)
            try:
                self._engine.api.start(container)
            except APIError as error:  # the program cannot be run, and the container says so
                if error.status_code == GONE and self._looks.at(container) is None:
                    raise NotFound(f"container {spec.name} was removed while it started") from None
        look = self._looks.at(container)
        if look is None:
            raise NotFound(f"container {spec.name} was removed while it started")
        return _state(look)

    def stop(self, container_id: str, grace_s: float) -> None:
        """The engine waits for the end."""
        with explained(f"stopping container {container_id[:12]}"):
            try:
                self._engine.api.stop(container_id, timeout=math.ceil(grace_s))
            except APIError as error:
                if error.status_code == GONE:
                    raise NotFound(f"container {container_id!r} does not exist") from None
                raise

    def delete(self, container_id: str) -> None:
        """With its log and all that it wrote."""
        with explained(f"removing container {container_id[:12]}"):
            try:
                self._engine.api.remove_container(container_id, force=True, v=True)
            except APIError as error:
                if error.status_code not in (GONE, CONFLICT):
                    raise

    def wait_for_change(self, timeout_s: float) -> bool:
        """Relative to the last call of `containers`. Nothing is missed between two calls: the engine keeps events."""
        filters = {"type": ["container"], "event": ["start", "die"], **of_cluster(self._cluster)}
        until = math.ceil(time.time() + min(timeout_s, LONGEST_WAIT_S))
        with explained("following the engine's events"):
            since = self._heard_ns // 10**9  # whole seconds: some events come once more
            events = self._engine.api.events(since=since, until=until, filters=filters, decode=True)
            try:
                return any(self._hear(event) for event in events)
            finally:
                events.close()

    def read_log(self, container_id: str, *, tail: int | None = None, follow: bool = False) -> RawIOBase:
        """As the engine kept it."""
        with explained(f"the log of container {container_id[:12]}"):
            try:
                chunks = self._engine.api.logs(
                    container_id, stream=True, follow=follow, tail="all" if tail is None else tail
                )
            except APIError as error:
                if error.status_code == GONE:
                    raise NotFound(f"container {container_id!r} has no log") from None
                raise
        return DockerLog(chunks)

    def exec(self, container_id: str, argv: Sequence[str], *, stdin: bool, tty: bool) -> ExecSession:
        """In all namespaces of the container."""
        return DockerExec(self._engine, DEFAULT_SOCKET, container_id, argv, stdin=stdin, tty=tty)

    def _labels(self, role: str, pod_uid: str) -> dict[str, str]:
        return {CLUSTER_LABEL: self._cluster, ROLE_LABEL: role, POD_LABEL: pod_uid}

    def _list(self, *, everything: bool = False, **labels: str) -> list[dict[str, Any]]:
        with explained("listing containers"):
            listed: list[dict[str, Any]] = self._engine.api.containers(
                all=everything, filters=of_cluster(self._cluster, **labels)
            )
        return listed

    def _reference(self, image: str) -> str:
        """`testbed/web` means the one that this testbed has built; any other name means itself."""
        return self._images.get(image.removesuffix(":latest"), image)

    def _create_pulling(self, name: str, spec: ContainerSpec) -> str:
        try:
            return self._create_container(name, spec)
        except ImageNotFound:
            self._pull(spec.image)
            return self._create_container(name, spec)

    def _pull(self, image: str) -> None:
        name, colon, tag = image.rpartition(":")
        repository, tag = (name, tag) if colon and "/" not in tag else (image, "latest")
        try:
            for step in self._engine.api.pull(repository, tag=tag, stream=True, decode=True):
                if "error" in step:
                    raise NotFound(f"image {image!r} cannot be pulled: {step['error']}")
        except APIError as error:
            raise NotFound(f"image {image!r} cannot be pulled: {error.explanation}") from None

    def _create_container(self, name: str, spec: ContainerSpec) -> str:
        holder = spec.sandbox or self._holder_of(spec.node)
        labels = {CONTAINER_LABEL: spec.name, ATTEMPT_LABEL: str(spec.attempt), IMAGE_LABEL: spec.image}
        host_config = self._engine.api.create_host_config(
            network_mode=JOINED + holder,
            cap_add=list(spec.capabilities),
            security_opt=[UNCONFINED],
            pid_mode="host" if spec.host_pid else None,
            binds=[self._bind(mount) for mount in spec.mounts],
            log_config=LOGS,
        )
        return self._create(
            name,
            image=self._reference(spec.image),
            entrypoint=list(spec.command) or None,
            command=list(spec.args) or None,
            environment=dict(spec.env),
            working_dir=spec.working_dir or None,
            labels={**self._labels(CONTAINER, spec.pod_uid), **labels},
            host_config=host_config,
        )

    def _create(self, name: str, *, image: str, **settings: Any) -> str:
        """The id of a new container, or of the one that was made under this name before a crash."""
        try:
            created = self._engine.api.create_container(image, name=name, **settings)
        except APIError as error:
            if error.status_code != CONFLICT:
                raise
            created = self._engine.api.inspect_container(name)
        return str(created["Id"])

    def _holder_of(self, node: str) -> str:
        look = self._looks.at(self._names.place(node))
        if look is None:
            raise NotFound(f"node {node} has no container")
        return str(look["Id"])

    def _bind(self, mount: Mount) -> str:
        source = mount.source
        if source.is_relative_to(self._state):
            source = self._state_on_host / source.relative_to(self._state)
        return f"{source}:{mount.path}{':ro' if mount.read_only else ''}"

    def _hear(self, event: Mapping[str, Any]) -> bool:
        """Whether the event is newer than the last look at the containers."""
        at_ns: int = event["timeNano"]
        is_news, self._heard_ns = at_ns > self._heard_ns, max(at_ns, self._heard_ns)
        if is_news and event["Action"] == "start" and event["Actor"]["Attributes"].get(ROLE_LABEL) in HOLDERS:
            self._rejoin()
        return at_ns > self._looked_ns

    def _rejoin(self) -> None:
        """Restart who is in a namespace that its holder has left, and start who found no holder to join.

        This very process last: its container is one of those that join the switch.
        """
        listed = self._list(everything=True)
        holders = {f"{JOINED}{one['Id']}" for one in listed if one["Labels"][ROLE_LABEL] in HOLDERS}
        joined = [one for one in listed if one["HostConfig"]["NetworkMode"] in holders]
        for one in sorted(joined, key=lambda one: one["Labels"][ROLE_LABEL] == AGENT):
            if self._is_astray(one):
                with explained("restarting a container whose network namespace has gone"):
                    self._engine.api.restart(one["Id"], timeout=0)

    def _is_astray(self, joined: Mapping[str, Any]) -> bool:
        here = _netns(self._looks.at(joined["Id"]))
        there = _netns(self._looks.at(joined["HostConfig"]["NetworkMode"].removeprefix(JOINED)))
        if here and there:
            return namespaces.number(here) != namespaces.number(there)
        return bool(there and joined["Labels"][ROLE_LABEL] == DAEMON and joined["State"] == "exited")


def _netns(look: Mapping[str, Any] | None) -> Path | None:
    if look is None or not look["State"]["Running"] or not look["State"]["Pid"]:
        return None
    return PROC / str(look["State"]["Pid"]) / "ns" / "net"


def _has_begun(look: Mapping[str, Any]) -> bool:
    """Not so between its creation and its start; a start that failed has an exit code."""
    return bool(look["State"]["Status"] != "created" or look["State"]["ExitCode"])


def _state(look: Mapping[str, Any]) -> ContainerState:
    state, labels = look["State"], look["Config"]["Labels"]
    is_running: bool = state["Running"]
    has_started = state["Status"] != "created"
    return ContainerState(
        id=look["Id"],
        pod_uid=labels[POD_LABEL],
        name=labels[CONTAINER_LABEL],
        image=labels[IMAGE_LABEL],
        attempt=int(labels[ATTEMPT_LABEL]),
        is_running=is_running,
        pid=state["Pid"],
        started_at=_seconds(state["StartedAt"] if has_started else look["Created"]),
        finished_at="" if state["Running"] else _seconds(state["FinishedAt"] if has_started else look["Created"]),
        exit_code=None if state["Running"] else state["ExitCode"],
        reason=_reason(state, has_started=has_started),
    )


def _reason(state: Mapping[str, Any], *, has_started: bool) -> str:
    """Kubernetes' words, for what the exit code does not tell."""
    if not has_started and not state["Running"]:
        return "ContainerCannotRun"
    return "OOMKilled" if state["OOMKilled"] else ""


def _seconds(time_ns: str) -> str:
    """RFC 3339 with nanoseconds, as Docker has it, to whole seconds, as Kubernetes has it."""
    return f"{time_ns[:19]}Z"
