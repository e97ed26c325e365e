"""The files of a pod: hosts, resolv.conf and its volumes, in a directory of its own.

    STATE/pods/UID/hosts  resolv.conf  address  volumes/NAME/…

`address` lets an agent that starts anew know which address the pod has, before anything else does.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any

from testbed.agent.environment import ConfigMapData, PodFacts, field_value
from testbed.agent.etcfiles import hosts, resolv_conf
from testbed.agent.sandbox import Mount
from testbed.api.objects import Object, namespace, spec
from testbed.errors import NotFound
from testbed.topology.spec import ClusterSpec, NodeSpec


class PodFiles:
    """The directory of one pod."""

    def __init__(self, state: Path, pod_uid: str) -> None:
        self.directory = state / "pods" / pod_uid

    def address(self) -> IPv4Address | None:
        """The address that was written; None where there is none."""
        with suppress(FileNotFoundError, AddressValueError):
            return IPv4Address((self.directory / "address").read_text(encoding="ascii"))
        return None

    def write(self, pod: Object, cluster: ClusterSpec, node: NodeSpec, address: IPv4Address) -> None:
        """The address, hosts and resolv.conf."""
        self.directory.mkdir(parents=True, exist_ok=True)
        _write(self.directory / "address", str(address))
        _write(self.directory / "hosts", hosts(pod, str(address), cluster, node))
        _write(self.directory / "resolv.conf", resolv_conf(pod, cluster))

    def write_volumes(self, pod: Object, facts: PodFacts, config_map: ConfigMapData) -> None:
        """Every volume of the pod; again after a ConfigMap has changed. NotFound for one that cannot be had."""
        for volume in spec(pod).get("volumes") or []:
            directory = self.directory / "volumes" / volume["name"]
            directory.mkdir(parents=True, exist_ok=True)
            for path, content in _files(pod, volume, facts, config_map):
                _write_inside(directory, path, content)

    def mounts(self, container: Mapping[str, Any]) -> list[Mount]:
        """What is mounted in a container: its volumes, and hosts and resolv.conf unless it mounts its own there."""
        taken = {mount["mountPath"] for mount in container.get("volumeMounts") or []}
        own = [
            Mount(self.directory / file, f"/etc/{file}", read_only=False)
            for file in ("hosts", "resolv.conf")
            if f"/etc/{file}" not in taken
        ]
        volumes = self.directory / "volumes"
        return own + [
            Mount(
                volumes / mount["name"] / (mount.get("subPath") or ""),
                mount["mountPath"],
                read_only=bool(mount.get("readOnly")),
            )
            for mount in container.get("volumeMounts") or []
        ]

    def delete(self) -> None:
        """All of it."""
        shutil.rmtree(self.directory, ignore_errors=True)


def _files(
    pod: Object, volume: Mapping[str, Any], facts: PodFacts, config_map: ConfigMapData
) -> Iterator[tuple[str, str]]:
    """The files of a volume, by their path in it."""
    if "emptyDir" in volume:
        return
    if source := volume.get("configMap"):
        yield from _config_map_files(pod, source, config_map)
    elif source := volume.get("downwardAPI"):
        for item in source.get("items") or []:
            yield item["path"], field_value(pod, item["fieldRef"]["fieldPath"], facts)
    else:
        kinds = ", ".join(key for key in volume if key != "name") or "nothing"
        raise NotFound(f"volume {volume['name']}: {kinds} is not supported; emptyDir, configMap and downwardAPI are")


def _config_map_files(pod: Object, source: Mapping[str, Any], config_map: ConfigMapData) -> Iterator[tuple[str, str]]:
    try:
        data = config_map(namespace(pod), source["name"])
    except NotFound:
        if not source.get("optional"):
            raise
        return
    items = source.get("items")
    if items is None:
        yield from data.items()
        return
    for item in items:
        if item["key"] in data:
            yield item["path"], data[item["key"]]
        elif not source.get("optional"):
            raise NotFound(f"ConfigMap {namespace(pod)}/{source['name']} has no key {item['key']}")


def _write_inside(directory: Path, path: str, content: str) -> None:
    target = directory / path
    if not target.resolve().is_relative_to(directory.resolve()):
        raise NotFound(f"volume path {path!r} leads out of its volume")
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(target, content)


def _write(path: Path, content: str) -> None:
    """A reader sees the old file or the new one, and an unchanged one keeps its inode (it may be mounted)."""
    if path.exists() and path.read_text(encoding="utf-8") == content:
        return
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(content, encoding="utf-8")
    beside.replace(path)
