"""Build contexts: which files an image is made of, the hash of them that is its tag, and the tar that docker reads.

The same files give the same hash and the same tar on every machine: names, contents and the executable bit count,
owners and times do not.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

NOT_SOURCE = {"__pycache__", "_images"}
TAG_LENGTH = 12


@dataclass(frozen=True)
class ContextFile:
    """One file of a build context; `name` is its path from the context's root."""

    name: str
    content: bytes
    is_executable: bool = False


def read_tree(directory: Path, prefix: str = "") -> list[ContextFile]:
    """Every file below `directory`, sorted by name, without what Python leaves behind."""
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return [
        ContextFile(prefix + path.relative_to(directory).as_posix(), path.read_bytes(), os.access(path, os.X_OK))
        for path in paths
        if not NOT_SOURCE & set(path.relative_to(directory).parts)
    ]


def digest(parent: str, files: Iterable[ContextFile]) -> str:
    """A tag for an image made of `files` on top of `parent`: 12 hex digits of SHA-256."""
    summed = hashlib.sha256(parent.encode())
    for file in sorted(files, key=lambda file: file.name):
        summed.update(f"\0{file.name}\0{file.is_executable:d}\0{len(file.content)}\0".encode())
        summed.update(file.content)
    return summed.hexdigest()[:TAG_LENGTH]


def write_context(out: BinaryIO, files: Iterable[ContextFile], trees: Mapping[str, Path]) -> None:
    """Write a build context to `out`: the files, and whole directories, too large to hold in memory, by their names."""
    with tarfile.open(fileobj=out, mode="w") as tar:
        for file in files:
            tar.addfile(_member(file), io.BytesIO(file.content))
        for name, directory in trees.items():
            tar.add(directory, arcname=name, filter=_anonymous)


def _member(file: ContextFile) -> tarfile.TarInfo:
    member = tarfile.TarInfo(file.name)
    member.size = len(file.content)
    member.mode = 0o755 if file.is_executable else 0o644
    return member


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member
