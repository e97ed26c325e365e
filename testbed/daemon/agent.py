"""`python -m testbed.daemon agent …`: the agent of one host, in the network namespace of its switch."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import ssl
import sys
from pathlib import Path

from testbed.agent.agent import Agent
from testbed.agent.identity import Identity
from testbed.agent.sandbox import Sandboxes
from testbed.agent.wiring import Wiring
from testbed.client.http import HttpClient
from testbed.topology.spec import ClusterSpec

SWITCH_INTERVAL_S = 0.0005
"""How long a thread that wires a pod may keep the loop waiting; with Python's 5 ms each write to the API would wait."""


def main(argv: list[str]) -> None:
    """Run until killed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("testbed.kernel").setLevel(logging.WARNING)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    asyncio.run(_run(_options(argv)))


async def _run(options: argparse.Namespace) -> None:
    directory: Path = options.dir
    spec = ClusterSpec.from_json(json.loads((directory / "spec.json").read_text(encoding="utf-8")))
    token = (directory / "token").read_text(encoding="ascii").strip()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "agent.crt", directory / "agent.key")
    sandboxes = _sandboxes(options, spec.name)
    wiring = Wiring(options.host, sandboxes.place)
    authority = (directory / "ca.crt").read_text(encoding="ascii")
    identity = Identity(options.host, options.runtime, options.state, token, authority)
    async with HttpClient(options.api, token, authority.encode()) as client:
        await Agent(client, sandboxes, wiring, identity, tls).run(spec)


def _sandboxes(options: argparse.Namespace, cluster: str) -> Sandboxes:
    if options.runtime == "docker":
        from testbed.agent.docker_sandbox import DockerSandboxes  # the docker SDK, which namespaces do without

        return DockerSandboxes(cluster, options.state)
    from testbed.agent.anchor_client import AnchorClient
    from testbed.agent.netns_sandbox import NetnsSandboxes

    return NetnsSandboxes(cluster, AnchorClient(options.anchor), options.anchor.parent, options.state)


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="testbed.daemon agent", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="bootstrap directory: spec.json, token, certificates")
    parser.add_argument("--host", required=True, help="the name of this host in the topology")
    parser.add_argument("--runtime", choices=("docker", "netns"), required=True)
    parser.add_argument("--api", required=True, help="unix:///PATH or https://ADDRESS:PORT")
    parser.add_argument("--anchor", type=Path, help="the anchor's socket (netns)")
    parser.add_argument("--state", type=Path, required=True, help="directory for the files of pods")
    return parser.parse_args(argv)
