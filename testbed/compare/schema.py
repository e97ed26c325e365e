"""What a comparison file may say: what is measured against what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt

from testbed.topology.schema import ClusterName, Name, Strict


class Metadata(Strict):
    """What the comparison is called; its clusters are named after it."""

    name: ClusterName


class Load(Strict):
    """Who makes the requests: a locustfile, and how many of its users at once."""

    locustfile: str = Field(min_length=1)
    users: Annotated[StrictInt, Field(ge=1, le=10_000)] = 16


class Client(Strict):
    """Where the requests come from."""

    node: Name
    host_network: StrictBool = Field(default=False, alias="hostNetwork")


class Target(Strict):
    """Where they go: to a web server's pod, or to the Service in front of it."""

    node: Name
    host_network: StrictBool = Field(default=False, alias="hostNetwork")
    via: Literal["pod", "service"] = "pod"


class Variant(Strict):
    """One setting. `set` changes the topology (`network.backend: host-gw`): such a variant gets its own cluster."""

    client: Client
    target: Target
    settings: Mapping[str, Any] = Field(default={}, alias="set")


class Primary(Strict):
    """The one cell that is tested; the others carry intervals and are exploratory."""

    variant: Name
    metric: Literal["p50", "p99", "loaded_p50", "loaded_p99", "requests", "cpu"] = "p50"


class ComparisonSpec(Strict):
    """What to measure."""

    topology: str = Field(min_length=1)
    load: Load
    baseline: Name
    variants: dict[Name, Variant] = Field(min_length=2)
    primary: Primary | None = None


class ComparisonFile(Strict):
    """Variants of one network under one load, each against the baseline."""

    api_version: Literal["testbed/v1"] = Field(alias="apiVersion")
    kind: Literal["Comparison"]
    metadata: Metadata
    spec: ComparisonSpec
