"""The testbed's own images: what each is made of, which tag that gives, and how the missing ones are built.

    base ─┬─ pause   web   netexec
          └─ python ── daemon ─┬─ load   dns
                               └─ probe

An image is tagged by a hash of its sources and of its parent's tag, so `testbed/web` always means the one made of the
files at hand, an older one stays for the clusters that run it, and what is tagged already need not be built. Only two
need anything from outside: base its Debian packages, and python its libraries, which pip installs on this machine from
this machine's own index.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, BuildError

import testbed
from testbed import shell
from testbed.agent.docker_engine import connect, explained
from testbed.agent.images import images_dir
from testbed.errors import CommandFailed, MachineLacks
from testbed.runtime.images_base import bootstrap, has_registry_base, machine_files
from testbed.runtime.images_context import ContextFile, digest, read_tree, write_context
from testbed.runtime.protocol import Progress

ROLES = ("base", "pause", "web", "netexec", "python", "daemon", "load", "probe", "dns")
"""In the order in which they are built: parents first."""
ROLE_LABEL = "testbed.image"
PARENT = re.compile(r"^ARG BASE=testbed/(?P<role>\S+)$", re.MULTILINE)
OUTSIDE_PARENT = re.compile(r"^FROM (?P<image>\S+:(?P<suite>\w+)\S*)$", re.MULTILINE)
PIP_TIMEOUT_S = 900.0
KEPT_S = 24 * 3600
ENGINE_LINES = ("Step ", " --->", "Removing intermediate container")


@dataclass(frozen=True)
class Image:
    """One image as it should be; `reference` is its name and tag, `parent` that of the image it stands on."""

    role: str
    reference: str
    parent: str
    files: tuple[ContextFile, ...]

    def text(self, name: str) -> str:
        """The content of the source file `name`."""
        return next(file.content.decode() for file in self.files if file.name == name)


def wanted(directory: Path | None = None) -> dict[str, Image]:
    """Every image by its role, made of the sources in `directory` (default: this testbed's own)."""
    images: dict[str, Image] = {}
    for role in ROLES:
        files = _sources(role, directory or images_dir())
        dockerfile = next(file.content.decode() for file in files if file.name == "Dockerfile")
        parent = PARENT.search(dockerfile)
        below = images[parent["role"]].reference if parent else ""
        images[role] = Image(role, f"testbed/{role}:{digest(below, files)}", below, files)
    return images


def references(images: Mapping[str, Image]) -> dict[str, str]:
    """What an image name without a tag means: `testbed/web` → `testbed/web:0123456789ab`."""
    return {f"testbed/{role}": image.reference for role, image in images.items()}


def build(progress: Progress, engine: docker.DockerClient | None = None) -> dict[str, str]:
    """Build the images that are missing on the engine, and return `references` of all.

    Raises MachineLacks where the machine has no engine, or neither a registry nor the programs to do without, and
    CommandFailed with the last line of a build that fails.
    """
    engine = engine or connect()
    images = wanted()
    found = _found(engine)
    present = {tag for image in found for tag in image.get("RepoTags") or ()}
    missing = [image for image in images.values() if image.reference not in present]
    for image in missing:
        progress(f"building image {image.reference}")
        _BUILDERS.get(image.role, _build_plain)(engine, image)
    if missing:
        _remove(engine, outdated(found, {image.reference for image in images.values()}, time.time()))
    return references(images)


def outdated(found: Iterable[Mapping[str, Any]], current: Collection[str], now_s: float) -> list[str]:
    """The ids of those images of ours that are older than a day and not of these sources.

    Younger ones may belong to another checkout that is at work.
    """
    return [
        image["Id"]
        for image in found
        if now_s - image["Created"] > KEPT_S and not set(image.get("RepoTags") or ()) & set(current)
    ]


def _found(engine: docker.DockerClient) -> list[dict[str, Any]]:
    with explained("listing the images"):
        found: list[dict[str, Any]] = engine.api.images(filters={"label": ROLE_LABEL})
    return found


def _remove(engine: docker.DockerClient, images: Iterable[str]) -> None:
    for image in images:
        with suppress(APIError):  # in use, or the parent of another: it stays
            engine.api.remove_image(image, force=False)


def _sources(role: str, directory: Path) -> tuple[ContextFile, ...]:
    files = read_tree(directory / role)
    if role == "daemon":
        files += read_tree(Path(testbed.__file__).parent, "testbed/")
    return tuple(files)


def _build_plain(engine: docker.DockerClient, image: Image) -> None:
    _docker_build(engine, image, {})


def _build_base(engine: docker.DockerClient, image: Image) -> None:
    outside = OUTSIDE_PARENT.search(image.text("Dockerfile"))
    assert outside, "images/base/Dockerfile names the image it stands on"
    if has_registry_base(engine, outside["image"]):
        files = (*image.files, *machine_files(outside["suite"]))
        # The package index is reached as this machine reaches it, with its proxies and names.
        _docker_build(engine, Image(image.role, image.reference, "", files), {}, network="host")
    else:
        bootstrap(engine, image.text("packages").split(), image.reference, f"{ROLE_LABEL}={image.role}")


def _build_python(engine: docker.DockerClient, image: Image) -> None:
    with tempfile.TemporaryDirectory(prefix="testbed-libraries-") as directory:
        libraries, lock = Path(directory) / "libraries", Path(directory) / "requirements.lock"
        lock.write_text(image.text("requirements.lock"))
        shell.run(install_command(lock, libraries, _python_of(engine, image.parent)), timeout_s=PIP_TIMEOUT_S)
        _docker_build(engine, image, {"libraries": libraries})


def install_command(lock: Path, target: Path, python: str) -> list[str]:
    """The installer's call that puts wheels for the image's Python (`3.11`) into `target`, whatever runs here."""
    wheels = ["--target", str(target), "--python-version", python, "--only-binary", ":all:", "--no-deps"]
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--implementation", "cp", "--no-compile"]
        return [*pip, *wheels, "--require-hashes", "--requirement", str(lock)]
    return ["uv", "pip", "install", "--quiet", *wheels, "--require-hashes", "--requirement", str(lock)]


def _python_of(engine: docker.DockerClient, reference: str) -> str:
    """The version, `3.11`, of the Python in an image."""
    tell = "import sys; print('%d.%d' % sys.version_info[:2])"
    with explained(f"asking {reference} for its Python"):
        said = engine.containers.run(reference, ["python3", "-c", tell], network_mode="none", remove=True)
    version = said.decode().strip()
    if tuple(map(int, version.split("."))) < (3, 11):
        raise MachineLacks(f"the testbed needs Python 3.11, and this distribution's packages bring {version}")
    return version


def _docker_build(
    engine: docker.DockerClient, image: Image, trees: Mapping[str, Path], *, network: str = "none"
) -> None:
    with tempfile.TemporaryFile() as context, explained(f"building image {image.reference}"):
        write_context(context, image.files, trees)
        context.seek(0)
        try:
            engine.images.build(
                fileobj=context,
                custom_context=True,
                tag=image.reference,
                buildargs={"BASE": image.parent} if image.parent else {},
                labels={ROLE_LABEL: image.role},
                network_mode=network,
                rm=True,
                forcerm=True,
            )
        except BuildError as error:
            raise CommandFailed(f"image {image.reference} does not build: {_last_line(error)}") from None


def _last_line(error: BuildError) -> str:
    """What a step printed last, which is usually why it failed; the engine's own progress aside."""
    printed = (line for step in error.build_log for line in str(step.get("stream", "")).splitlines())
    lines = [line for line in printed if line.strip() and not line.startswith(ENGINE_LINES)]
    return f"{error.msg}{': ' + lines[-1] if lines else ''}"


_BUILDERS: dict[str, Callable[[docker.DockerClient, Image], None]] = {"base": _build_base, "python": _build_python}
