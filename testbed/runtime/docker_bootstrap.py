"""The bootstrap directory in a Docker volume: written and read through a container that mounts it, as one archive.

A container need not run for that, and the engine may be on another machine.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from pathlib import Path

import docker
from docker.errors import NotFound

from testbed.agent.docker_engine import explained
from testbed.runtime.bootstrap import write_bootstrap
from testbed.runtime.docker_parts import BOOTSTRAP_DIR
from testbed.topology.spec import ClusterSpec


def write(engine: docker.DockerClient, container: str, spec: ClusterSpec) -> None:
    """Make the volume hold everything for this spec; authority and token that are there stay."""
    with tempfile.TemporaryDirectory(prefix="testbed-bootstrap-") as name:
        directory = Path(name)
        for file, content in read(engine, container).items():
            (directory / file).touch(mode=0o600)
            (directory / file).write_bytes(content)
        write_bootstrap(directory, spec)
        with explained("writing the bootstrap directory"):
            engine.api.put_archive(container, BOOTSTRAP_DIR, _packed(directory))


def read(engine: docker.DockerClient, container: str) -> dict[str, bytes]:
    """The files of the bootstrap directory by name; empty where none was written yet, or the container is gone."""
    with explained("reading the bootstrap directory"):
        try:
            chunks, _ = engine.api.get_archive(container, BOOTSTRAP_DIR)
            packed = b"".join(chunks)
        except NotFound:
            return {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        members = ((Path(member.name).name, tar.extractfile(member)) for member in tar if member.isfile())
        return {name: file.read() for name, file in members if file}


def read_spec(engine: docker.DockerClient, container: str) -> ClusterSpec | None:
    """The spec that was last written."""
    text = read(engine, container).get("spec.json")
    return ClusterSpec.from_json(json.loads(text)) if text else None


def _packed(directory: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(directory, arcname=".", filter=_of_root)
    return out.getvalue()


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
