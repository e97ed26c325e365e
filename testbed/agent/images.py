"""The images of this repository as programs: the netns runtime runs an image's entrypoint as a process.

`images/<role>/Dockerfile` says how a program starts and `images/<role>/files` is laid out like the image's root, for
docker and for the netns runtime alike. `FROM testbed/<other>` inherits, as it does for docker.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from testbed.errors import NotFound

REPOSITORY = "testbed/"
_PLAIN = {"WORKDIR": "working_dir", "STOPSIGNAL": "stop_signal"}
_BASE_ARGUMENT = re.compile(r"BASE=(?P<image>\S+)")


@dataclass(frozen=True)
class Image:
    """What a container is started with when its pod does not say otherwise."""

    role: str
    files: tuple[Path, ...] = ()
    """Directories laid out like the root, topmost first."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    stop_signal: str = "SIGTERM"


def images_dir() -> Path:
    """Where the images' sources are: `images/` of the repository, or `testbed/_images` where a wheel is installed."""
    package = Path(__file__).resolve().parents[1]
    packed = package / "_images"
    return packed if packed.is_dir() else package.parent / "images"


def resolve(image: str, aliases: Mapping[str, str]) -> str:
    """The image used in place of `image`: the first alias whose pattern matches it, with or without its `:latest`."""
    tagged = image if ":" in image.rpartition("/")[2] else f"{image}:latest"
    for pattern, substitute in aliases.items():
        if fnmatchcase(image, pattern) or fnmatchcase(tagged, pattern):
            return substitute
    return image


def find_image(image: str) -> Image:
    """The image of that name; its tag is ignored. NotFound names the ones that there are."""
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        name = head
    role = name.removeprefix(REPOSITORY)
    if name == role or not (images_dir() / role / "Dockerfile").is_file():
        known = ", ".join(sorted(f"{REPOSITORY}{path.parent.name}" for path in images_dir().glob("*/Dockerfile")))
        raise NotFound(f"image {image!r} cannot be had: on namespaces there are {known}; the topology may alias others")
    return _read(role)


@lru_cache
def _read(role: str) -> Image:
    directory = images_dir() / role
    image = Image(role)
    for instruction, value in _instructions((directory / "Dockerfile").read_text(encoding="utf-8")):
        image = _apply(image, role, instruction, value)
    files = directory / "files"
    return replace(image, files=(files, *image.files) if files.is_dir() else image.files)


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    for line in text.replace("\\\n", " ").splitlines():
        instruction, _, value = line.strip().partition(" ")
        if instruction and not instruction.startswith("#"):
            yield instruction.upper(), value.strip()


def _apply(image: Image, role: str, instruction: str, value: str) -> Image:
    match instruction:
        case "ARG" if (match := _BASE_ARGUMENT.fullmatch(value)) and match["image"].startswith(REPOSITORY):
            return replace(_read(match["image"].removeprefix(REPOSITORY).partition(":")[0]), role=role)
        case "ENTRYPOINT":
            return replace(image, entrypoint=tuple(json.loads(value)))
        case "CMD":
            return replace(image, command=tuple(json.loads(value)))
        case "ENV":
            return replace(image, env={**image.env, **dict(part.split("=", 1) for part in shlex.split(value))})
        case "WORKDIR" | "STOPSIGNAL":
            changed: dict[str, Any] = {_PLAIN[instruction]: value}
            return replace(image, **changed)
        case _:
            return image
