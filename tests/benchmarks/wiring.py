"""What a pod's wiring costs on namespaces: its namespace, the veth pair, addresses and routes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from ipaddress import IPv4Network
from pathlib import Path

from testbed.errors import KernelError
from testbed.kernel import netns
from testbed.kernel.netlink import NetlinkLinks
from testbed.network import podlink
from tests.benchmarks.figures import Measured

PODS = 200
ROUNDS = 5
POD_CIDR = IPv4Network("10.244.0.0/24")
MTU = 1450


def per_pod() -> Mapping[str, Measured]:
    """Two hundred pods on one node, one after the other; the middle one of five rounds."""
    making, wiring = sorted((_round() for _ in range(ROUNDS)), key=sum)[ROUNDS // 2]
    how = f"{making:.2f} ms for the namespace and {wiring:.2f} ms for its link; {PODS} pods, median of {ROUNDS} rounds"
    return {"wiring": Measured(making + wiring, how)}


def why_not() -> str:
    """It makes namespaces of its own."""
    try:
        with tempfile.TemporaryDirectory() as directory:
            netns.create(Path(directory) / "try")
            netns.delete(Path(directory) / "try")
    except (KernelError, PermissionError) as error:
        return f"this user may make no network namespace ({error})"
    return ""


def _round() -> tuple[float, float]:
    """Milliseconds per pod for namespaces, and for links."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as undo:
        root = Path(directory)
        node = root / "node"
        netns.create(node)
        undo.callback(netns.delete, node)
        links = NetlinkLinks(node)
        undo.callback(links.close)
        links.ensure_up("lo")
        podlink.ensure_bridge(links, POD_CIDR, MTU)
        pods = [root / f"pod-{number}" for number in range(PODS)]
        for pod in pods:
            undo.callback(netns.delete, pod)
        began = time.perf_counter()
        for pod in pods:
            netns.create(pod)
        made = time.perf_counter()
        gateway = podlink.gateway(POD_CIDR)
        for number, pod in enumerate(pods):
            address = gateway + 1 + number
            podlink.attach(links, pod, device=f"veth{number:08x}", address=address, gateway=gateway, mtu=MTU)
        wired = time.perf_counter()
    return (made - began) * 1000 / PODS, (wired - made) * 1000 / PODS
