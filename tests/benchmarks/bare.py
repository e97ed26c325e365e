"""The floor under `up` on docker: the same containers, started side by side by nothing but the engine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import docker
from docker.models.containers import Container

SIDE_BY_SIDE = 16
LABEL = "testbed-bench-bare"


@dataclass(frozen=True)
class Bare:
    """Containers to be started, by the id that they had in the cluster: image, program and the networks they join."""

    wanted: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, cluster: str) -> Bare:
        """The containers of a running cluster; only what it costs to start them is kept, not what they talk about."""
        with_client = docker.from_env()
        try:
            found = with_client.containers.list(filters={"label": f"testbed={cluster}"})
            return cls({str(container.id): _recipe(container.attrs) for container in found})
        finally:
            with_client.close()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.wanted)

    def start_all(self) -> float:
        """Seconds until all of them run; they are removed before it returns."""
        client = docker.from_env(max_pool_size=SIDE_BY_SIDE)
        try:
            with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
                began = time.monotonic()
                started: dict[str, Future[Container]] = {}
                for old in self._in_order():
                    started[old] = threads.submit(self._start, client, old, started)
                containers = [future.result() for future in started.values()]
                seconds = time.monotonic() - began
                list(threads.map(lambda container: container.remove(force=True), containers))
            return seconds
        finally:
            client.close()

    def _in_order(self) -> list[str]:
        """Those that others join come first, or the threads might all wait for one that has none."""
        return sorted(self.wanted, key=lambda old: self._depth(old))

    def _depth(self, old: str) -> int:
        joined = self.wanted[old]["joins"]
        return 1 + self._depth(joined) if joined in self.wanted else 0

    def _start(self, client: docker.DockerClient, old: str, started: Mapping[str, Future[Container]]) -> Container:
        recipe = self.wanted[old]
        joined = recipe["joins"]
        network = f"container:{started[joined].result().id}" if joined in self.wanted else "none"
        return client.containers.run(**recipe["run"], network_mode=network, detach=True, labels=[LABEL])


def _recipe(attrs: Mapping[str, Any]) -> dict[str, Any]:
    config, host = attrs["Config"], attrs["HostConfig"]
    mode = host["NetworkMode"]
    return {
        "joins": mode.removeprefix("container:") if mode.startswith("container:") else "",
        "run": {
            "image": config["Image"],
            "entrypoint": config["Entrypoint"],
            "command": config["Cmd"],
            "environment": config["Env"],
            "cap_add": host["CapAdd"],
            "pid_mode": host["PidMode"] or None,
            "network_disabled": bool(config.get("NetworkDisabled")),
        },
    }
