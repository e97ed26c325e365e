"""A few namespaces on a wire, and work done inside them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import TypeVar

from testbed.kernel import netns
from testbed.kernel.conntrack import Conntrack
from testbed.kernel.ipvs import NetlinkIpvs
from testbed.kernel.links import Hop, Peer
from testbed.kernel.netlink import NetlinkLinks
from testbed.kernel.nft import LibNft

T = TypeVar("T")

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
STOP = b"stop"


class Lab:
    """Makes namespaces and handles, and removes them all at the end."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._undo = ExitStack()

    def place(self, name: str) -> Path:
        """A namespace of that name, with its loopback up."""
        path = self._root / name
        if not netns.is_netns(path):
            netns.create(path)
            self._undo.callback(netns.delete, path)
            self.links(name).ensure_up("lo")
        return path

    def links(self, name: str) -> NetlinkLinks:
        """A handle on the place's devices."""
        links = NetlinkLinks(self.place(name))
        self._undo.callback(links.close)
        return links

    def nft(self, name: str) -> LibNft:
        """A handle on the place's rules."""
        nft = LibNft(self.place(name))
        self._undo.callback(nft.close)
        return nft

    def conntrack(self, name: str) -> Conntrack:
        """A handle on the place's connection table."""
        conntrack = Conntrack(self.place(name))
        self._undo.callback(conntrack.close)
        return conntrack

    def ipvs(self, name: str) -> NetlinkIpvs:
        """A handle on the place's virtual servers."""
        ipvs = NetlinkIpvs(self.place(name))
        self._undo.callback(ipvs.close)
        return ipvs

    def inside(self, name: str, work: Callable[[], T]) -> T:
        """Do a piece of work in the place."""
        return netns.inside(self.place(name), work)

    def plug(self, name: str, address: str, *, mtu: int = 1500, gateway: str = "198.18.0.1") -> None:
        """Connect the place to the switch: eth0 with this address, and a default route."""
        switch, place = self.links("tb-c-switch"), self.links(name)
        switch.ensure_bridge("underlay", mtu=mtu)
        switch.set_addresses("underlay", [IPv4Interface("198.18.0.1/16")])
        switch.ensure_veth(f"n-{name}"[:15], Peer("eth0", self.place(name)), mtu=mtu, master="underlay")
        place.set_addresses("eth0", [IPv4Interface(address)])
        place.set_routes("eth0", {IPv4Network("0.0.0.0/0"): Hop(via=IPv4Address(gateway))})

    @contextmanager
    def serve(self, name: str, protocol: str, port: int, answer: str) -> Iterator[None]:
        """Answer every client of this port of the place with `answer` and the client's address."""
        sock = self.inside(name, lambda: socket.socket(socket.AF_INET, KINDS[protocol]))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", port))
        thread = threading.Thread(target=_serve, args=(sock, protocol, answer))
        if protocol == "tcp":
            sock.listen(64)
        thread.start()
        try:
            yield
        finally:
            sock.shutdown(socket.SHUT_RDWR) if protocol == "tcp" else _wake(self, name, port)
            thread.join()
            sock.close()

    def ask(self, name: str, protocol: str, host: str, port: int, *, timeout_s: float = 2.0, source: int = 0) -> str:
        """What a server answers to a client in the place; OSError where it does not."""
        with self.inside(name, lambda: socket.socket(socket.AF_INET, KINDS[protocol])) as sock:
            sock.settimeout(timeout_s)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("0.0.0.0", source))
            sock.connect((host, port))
            sock.send(b"?")
            return sock.recv(1000).decode()

    def close(self) -> None:
        """Remove everything."""
        self._undo.close()


def _serve(sock: socket.socket, protocol: str, answer: str) -> None:
    while True:
        try:
            if protocol == "tcp":
                client, (host, _) = sock.accept()
                with client:
                    client.recv(1)
                    client.send(f"{answer} {host}".encode())
            else:
                data, (host, port) = sock.recvfrom(1000)
                if data == STOP:
                    return
                sock.sendto(f"{answer} {host}".encode(), (host, port))
        except OSError:
            return


def _wake(lab: Lab, name: str, port: int) -> None:
    with lab.inside(name, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.sendto(STOP, ("127.0.0.1", port))
