"""The base image: Debian packages, from a registry's ordinary base where one answers, otherwise bootstrapped.

The bootstrap needs no registry: mmdebstrap makes a root file system from the machine's own apt configuration (its
mirrors, suite and proxies), and docker imports the tar. Either way images/base/packages says what is in it.
"""

from __future__ import annotations

import logging
import platform
import re
import tempfile
from collections.abc import Collection, Iterable
from contextlib import closing
from pathlib import Path

import docker
import requests
from docker.errors import DockerException, ImageNotFound

from testbed import shell
from testbed.agent.docker_engine import connect, explained
from testbed.errors import MachineLacks
from testbed.runtime.images_context import ContextFile

log = logging.getLogger(__name__)

REGISTRY_TIMEOUT_S = 20
"""A registry that has said nothing for so long does not answer; each piece of a pull starts this anew."""
BOOTSTRAP_TIMEOUT_S = 900.0
CHUNK = 1 << 20
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
NOT_IN_A_CONTAINER = ("doc", "man", "info", "locale")
SOURCE_FORMAT = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
KEPT_SETTINGS = re.compile(r"Acquire::(https?|Retries|ForceIPv4)\b")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def has_registry_base(engine: docker.DockerClient, parent: str) -> bool:
    """Whether `parent` (`debian:bookworm-slim`) is on this engine, after asking its registry for it."""
    try:
        engine.images.get(parent)
    except ImageNotFound:
        return _pulled(parent)
    return True


def _pulled(parent: str) -> bool:
    repository, _, tag = parent.partition(":")
    with closing(connect(timeout_s=REGISTRY_TIMEOUT_S)) as engine:
        try:
            steps = list(engine.api.pull(repository, tag=tag, stream=True, decode=True))
        except (DockerException, requests.RequestException) as error:
            log.info("no registry answers: %s", error)
            return False
    return not any("error" in step for step in steps)


def machine_files(suite: str) -> list[ContextFile]:
    """This machine's apt settings, its sources where they are of the same suite, and the authorities it trusts."""
    sources = apt_sources() if _os_release().get("VERSION_CODENAME") == suite else []
    authorities = AUTHORITIES.read_bytes() if AUTHORITIES.exists() else b""
    return [
        ContextFile("machine/apt.conf", _lines(apt_settings())),
        ContextFile("machine/sources.list", _lines(sources)),
        ContextFile("machine/ca-certificates.crt", authorities),
    ]


def bootstrap(engine: docker.DockerClient, packages: Iterable[str], reference: str, label: str) -> None:
    """Make the image `reference` from this machine's Debian packages. MachineLacks says what that would need."""
    sources = apt_sources()
    if not sources:
        raise MachineLacks(
            "no image registry answers, and this machine has no apt sources to bootstrap a base image from"
        )
    with tempfile.TemporaryDirectory(prefix="testbed-base-") as directory:
        root = Path(directory) / "root.tar"
        try:
            shell.run(bootstrap_command(packages, root, sources, apt_settings()), timeout_s=BOOTSTRAP_TIMEOUT_S)
        except MachineLacks:
            raise MachineLacks(
                "no image registry answers, and mmdebstrap, which would make the base image without one, is not"
                " installed: apt-get install mmdebstrap"
            ) from None
        _import(engine, root, reference, label)


def bootstrap_command(
    packages: Iterable[str], root: Path, sources: Iterable[str], settings: Iterable[str]
) -> list[str]:
    """The mmdebstrap call that writes the root file system to `root`."""
    suite = _os_release().get("VERSION_CODENAME", "")
    return [
        "mmdebstrap",
        "--variant=essential",
        f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--aptopt={setting}" for setting in settings),
        *(f"--dpkgopt=path-exclude=/usr/share/{unread}/*" for unread in NOT_IN_A_CONTAINER),
        suite,
        str(root),
        *sources,
    ]


def apt_sources() -> list[str]:
    """The machine's own package sources as lines of sources.list, those of its distribution only."""
    release = _os_release()
    try:
        targets = shell.run(["apt-get", "indextargets", "--format", SOURCE_FORMAT, "Created-By: Packages"])
    except MachineLacks:
        return []
    return source_lines(targets, {release.get("ID", ""), *release.get("ID_LIKE", "").split()})


def source_lines(targets: str, family: Collection[str]) -> list[str]:
    """apt's index targets (URI, suite, component, origin) as lines of sources.list, one for each URI and suite.

    A vendor's source beside those of the distribution (`family`) serves other packages, and is often signed by a key
    that mmdebstrap does not find.
    """
    components: dict[tuple[str, str], list[str]] = {}
    for target in dict.fromkeys(targets.splitlines()):
        uri, suite, component, origin = target.split(maxsplit=3)
        if origin.lower() in family:
            components.setdefault((uri, suite), []).append(component)
    return [f"deb {uri} {suite} {' '.join(names)}" for (uri, suite), names in components.items()]


def apt_settings() -> list[str]:
    """How this machine's apt reaches its mirrors: proxies, certificates, retries."""
    try:
        settings = shell.run(["apt-config", "dump"])
    except MachineLacks:
        return []
    return [line for line in settings.splitlines() if KEPT_SETTINGS.match(line) and not line.endswith(' "";')]


def _import(engine: docker.DockerClient, root: Path, reference: str, label: str) -> None:
    repository, _, tag = reference.partition(":")
    changes = [f"ENV PATH={PATH}", f"LABEL {label}"]
    with explained("importing the bootstrapped base image"), root.open("rb") as stream:
        # A file would be sent with its length, while the SDK announces chunks; an iterator is sent in chunks.
        chunks = iter(lambda: stream.read(CHUNK), b"")
        engine.api.import_image_from_stream(chunks, repository=repository, tag=tag, changes=changes)


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
