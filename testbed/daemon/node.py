"""The node daemon's process: inside one node's namespace, or outside of all and at home in each."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from testbed.agent.netns_sandbox import place_name
from testbed.client.http import HttpClient
from testbed.kernel import netns
from testbed.kernel.heap import share_one_arena
from testbed.node.daemon import Locate, NodeDaemons
from testbed.node.handles import Handles, open_handles

_THREADS = 4
"""Kernel work is short, and each thread's share of the heap counts."""
_COLLECT = (50_000, 20, 100)
"""Python looks for garbage after so many new objects (gc.set_threshold): a list of ten thousand Services holds none,
and looking through it again and again took a third of the time of a start."""


def main(argv: list[str]) -> None:
    """Serve until SIGTERM or SIGINT. The kernel keeps everything, so traffic goes on without this process."""
    share_one_arena()
    gc.set_threshold(*_COLLECT)
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    directory: Path = options.dir
    locate = partial(_own, options.node) if options.node else partial(_among, _prefix(directory, options.netns_dir))
    asyncio.run(_serve(directory, options.api, locate))


async def _serve(directory: Path, api: str, locate: Locate) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, "kernel"))
    token = (directory / "token").read_text().strip()
    async with HttpClient(api, token, (directory / "ca.crt").read_bytes()) as client:
        daemons = asyncio.create_task(NodeDaemons(client, locate).run())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemons.cancel)
        try:
            await daemons
        except asyncio.CancelledError:
            logging.getLogger(__name__).info("stopping")


def _own(mine: str, name: str) -> Handles | None:
    return open_handles(None) if name == mine else None


def _among(prefix: str, name: str) -> Handles | None:
    path = Path(f"{prefix}{name}")
    return open_handles(path) if netns.is_netns(path) else None


def _prefix(directory: Path, namespaces: Path) -> str:
    """What a node's name is appended to: the namespaces of a cluster are `testbed-CLUSTER-NODE`."""
    cluster = json.loads((directory / "spec.json").read_text())["name"]
    return str(namespaces / place_name(cluster, ""))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("node-daemon")
    parser.add_argument("--dir", type=Path, required=True, help="the bootstrap directory of the cluster")
    parser.add_argument("--api", required=True, help="unix:///PATH or https://HOST:PORT")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--node", help="the node whose namespace this process lives in")
    which.add_argument("--all", action="store_true", help="every worker whose namespace is in --netns-dir")
    parser.add_argument("--netns-dir", type=Path, help="where namespaces are mounted")
    return parser
