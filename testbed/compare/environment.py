"""Under which circumstances a comparison was measured: the file beside the measurements, from which all is redrawn."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = "environment.json"


@dataclass(frozen=True)
class VariantInfo:
    """One variant as it was measured."""

    client_node: str
    client_host_network: bool
    target_node: str
    target_host_network: bool
    via: str
    settings: Mapping[str, Any]
    cluster: str
    client_address: str
    target_address: str
    """Of the endpoint itself, behind any Service."""
    url: str
    """What the generator asks for."""
    path: str
    """`path.PROVEN` and so on."""
    path_detail: str


@dataclass(frozen=True)
class Environment:
    """Everything that the measurements themselves do not say."""

    name: str
    baseline: str
    primary: tuple[str, str]
    variants: Mapping[str, VariantInfo]
    clusters: Mapping[str, Mapping[str, Any]]
    """Name → `ClusterSpec.to_json`"""
    locustfile: str
    users: int
    placement: Mapping[str, Any]
    pace: Mapping[str, float]
    seed: int
    command: str
    """What repeats it."""
    started: str
    machine: Mapping[str, Any] = field(default_factory=dict)
    devices: Mapping[str, Any] = field(default_factory=dict)
    """Cluster → node → device → MTU, offloads, counters"""
    ended: str = ""
    stopped: str = ""
    """Why there were no more rounds."""

    def write(self, directory: Path) -> None:
        """Into `directory`, replacing what is there."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        (directory / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Environment:
        """What `write` wrote."""
        doc = json.loads((directory / FILE).read_text(encoding="utf-8"))
        variants = {name: VariantInfo(**info) for name, info in doc["variants"].items()}
        return cls(**{**doc, "variants": variants, "primary": tuple(doc["primary"])})
