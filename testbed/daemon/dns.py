"""`python -m testbed.daemon dns …`: the controller of the cluster's DNS, in a pod, beside knotd."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from pathlib import Path

from testbed.api.wellknown import SERVICE_ACCOUNT_PATH
from testbed.client.http import HttpClient
from testbed.dns.config import READY_PATH, READY_PORT
from testbed.dns.controller import Controller
from testbed.dns.knot import Knot
from testbed.waiting import wait_until_async

ACCOUNT = Path(SERVICE_ACCOUNT_PATH)
CONNECT_S = 0.05
"""The node's service rules may come a little after the pod, and a lost SYN is repeated after a whole second."""
API_TIMEOUT_S = 60.0


def main(argv: list[str]) -> None:
    """Serve until SIGTERM or SIGINT. knotd keeps what it has."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_serve(_options(argv)))


async def _serve(options: argparse.Namespace) -> None:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
    await wait_until_async(lambda: _answers(host, port), API_TIMEOUT_S, f"a connection to the API at {host}:{port}")
    token = (ACCOUNT / "token").read_text(encoding="ascii").strip()
    async with HttpClient(f"https://{host}:{port}", token, (ACCOUNT / "ca.crt").read_bytes()) as client:
        controller = Controller(client, Knot(options.socket, options.domain), options.domain, options.address)
        following = asyncio.create_task(controller.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, following.cancel)
        async with await asyncio.start_server(Readiness(controller).answer, port=READY_PORT):
            try:
                await following
            except asyncio.CancelledError:
                logging.getLogger(__name__).info("stopping")


class Readiness:
    """Answers readiness probes: 200 when knotd has everything."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer, and the connection closes."""
        line = await reader.readline()
        if line.split()[1:2] != [READY_PATH.encode()]:
            status = "404 Not Found"
        else:
            status = "200 OK" if self._controller.is_ready else "503 Service Unavailable"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()


async def _answers(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="testbed.daemon dns", description=__doc__)
    parser.add_argument("--domain", required=True, help="the cluster's domain: cluster.local")
    parser.add_argument("--address", required=True, help="the ClusterIP of the DNS, ns.dns.DOMAIN")
    parser.add_argument("--socket", type=Path, required=True, help="knotd's control socket")
    return parser.parse_args(argv)
