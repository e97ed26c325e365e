"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Output(StrEnum):
    """How data is printed."""

    TEXT = "text"
    JSON = "json"


class RuntimeName(StrEnum):
    """Where a cluster lives."""

    AUTO = "auto"
    DOCKER = "docker"
    NETNS = "netns"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Print the data as text or as JSON.")]
ClusterArgument = Annotated[
    str, typer.Argument(help="The cluster; not needed where exactly one is up.", metavar="[CLUSTER]")
]
ClusterOption = Annotated[str, typer.Option("--cluster", help="The cluster; not needed where exactly one is up.")]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="The Kubernetes namespace.")]
ContainerOption = Annotated[str, typer.Option("--container", "-c", help="The container; by default the pod's first.")]
RuntimeOption = Annotated[RuntimeName | None, typer.Option(help="In place of what the topology says.")]
