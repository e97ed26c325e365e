"""The connection to a Docker engine, and its errors as sentences."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import docker
import requests
from docker.errors import APIError, DockerException

from testbed.errors import CommandFailed, MachineLacks

CONNECTIONS = 16
"""How many requests may be under way side by side; more than a two-core engine makes use of."""
DEFAULT_SOCKET = "/var/run/docker.sock"


def connect(url: str = "", *, timeout_s: int = 120) -> docker.DockerClient:
    """A client of the engine at `url`, by default the one that DOCKER_HOST names, otherwise this machine's.

    Raises MachineLacks where none answers. `timeout_s` bounds each request, and each silence within a stream.
    """
    try:
        if url:
            engine = docker.DockerClient(base_url=url, timeout=timeout_s, max_pool_size=CONNECTIONS)
        else:
            engine = docker.from_env(timeout=timeout_s, max_pool_size=CONNECTIONS)
        engine.ping()
    except (DockerException, requests.RequestException) as error:
        at = url or os.environ.get("DOCKER_HOST") or "the default socket"
        raise MachineLacks(f"no Docker engine answers at {at}: {_reason(error)}") from None
    return engine


def socket_path() -> str:
    """The engine's socket on the engine's own machine, to be mounted into the agent."""
    host = os.environ.get("DOCKER_HOST", "")
    return host.removeprefix("unix://") if host.startswith("unix://") else DEFAULT_SOCKET


@contextmanager
def explained(what: str) -> Iterator[None]:
    """What the engine refuses while `what` is done becomes one CommandFailed that says both."""
    try:
        yield
    except APIError as error:
        raise CommandFailed(f"{what}: docker says: {error.explanation or error}") from None
    except (DockerException, requests.RequestException) as error:
        raise CommandFailed(f"{what}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """The innermost cause, which is the one that says what to mend (`Permission denied`, `No such file`)."""
    while isinstance(error.__context__, Exception):
        error = error.__context__
    return str(error)
