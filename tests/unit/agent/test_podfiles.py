"""hosts, resolv.conf and volumes of a pod."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from testbed.agent.environment import PodFacts
from testbed.agent.podfiles import PodFiles
from testbed.errors import NotFound
from tests.unit.agent.specs import cluster, pod

FACTS = PodFacts("10.244.1.2", "198.18.0.11", "10.96.0.1")


def config_map(_namespace: str, name: str) -> Mapping[str, str]:
    if name != "site":
        raise NotFound(f"ConfigMap {name} does not exist")
    return {"index.html": "hello", "about": "us"}


def files_of(tmp_path: Path, *volumes: dict[str, Any]) -> PodFiles:
    files = PodFiles(tmp_path, "uid")
    files.write_volumes(pod(volumes=list(volumes)), FACTS, config_map)
    return files


def test_a_new_agent_finds_the_address_again(tmp_path: Path) -> None:
    files = PodFiles(tmp_path, "uid")
    assert files.address() is None
    files.write(pod(), cluster(), cluster().nodes[0], IPv4Address("10.244.1.2"))
    assert PodFiles(tmp_path, "uid").address() == IPv4Address("10.244.1.2")


def test_a_config_map_becomes_files(tmp_path: Path) -> None:
    files = files_of(tmp_path, {"name": "v", "configMap": {"name": "site"}})
    assert (files.directory / "volumes/v/index.html").read_text() == "hello"


def test_chosen_keys_get_the_paths_they_are_given(tmp_path: Path) -> None:
    items = [{"key": "about", "path": "deep/about.txt"}]
    files = files_of(tmp_path, {"name": "v", "configMap": {"name": "site", "items": items}})
    found = [path.relative_to(files.directory) for path in files.directory.rglob("*") if path.is_file()]
    assert found == [Path("volumes/v/deep/about.txt")]


def test_an_empty_dir_keeps_what_was_written_to_it(tmp_path: Path) -> None:
    volume = {"name": "v", "emptyDir": {}}
    written = files_of(tmp_path, volume).directory / "volumes/v/mine"
    written.write_text("data")
    files_of(tmp_path, volume)
    assert written.read_text() == "data"


@pytest.mark.parametrize(
    ("volume", "reason"),
    [
        ({"configMap": {"name": "nowhere"}}, "nowhere does not exist"),
        ({"hostPath": {"path": "/"}}, "hostPath is not supported"),
        ({"configMap": {"name": "site", "items": [{"key": "about", "path": "../../x"}]}}, "leads out of its volume"),
    ],
)
def test_a_volume_that_cannot_be_had_says_why(tmp_path: Path, volume: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotFound, match=reason):
        files_of(tmp_path, {"name": "v", **volume})


def test_volumes_are_mounted_where_the_container_wants_them(tmp_path: Path) -> None:
    files = PodFiles(tmp_path, "uid")
    mounts = files.mounts({"volumeMounts": [{"name": "v", "mountPath": "/www", "subPath": "deep", "readOnly": True}]})
    assert [mount.path for mount in mounts] == ["/etc/hosts", "/etc/resolv.conf", "/www"]
    assert (mounts[-1].source, mounts[-1].read_only) == (files.directory / "volumes/v/deep", True)


def test_a_container_that_brings_its_own_hosts_keeps_them(tmp_path: Path) -> None:
    mounts = PodFiles(tmp_path, "uid").mounts({"volumeMounts": [{"name": "v", "mountPath": "/etc/hosts"}]})
    assert [mount.path for mount in mounts] == ["/etc/resolv.conf", "/etc/hosts"]
