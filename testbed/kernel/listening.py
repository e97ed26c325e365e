"""Listening sockets in any network namespace: opened inside it once, served from wherever the process lives."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

from testbed.errors import KernelError
from testbed.kernel import netns as namespaces

ANY = IPv4Address(0)
_BACKLOG = 128


def listen(netns: Path | None, port: int, address: IPv4Address = ANY) -> socket.socket:
    """A TCP socket that listens at this port, at one address or (by default) at all that the namespace has.

    KernelError where the port is taken (EADDRINUSE) or the address is none of the namespace's (EADDRNOTAVAIL).
    """
    with ExitStack() as undo:
        try:
            listener = undo.enter_context(_open() if netns is None else namespaces.inside(netns, _open))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((str(address), port))
            listener.listen(_BACKLOG)
        except OSError as error:
            raise KernelError(f"listen at {address}:{port}: {error.strerror or error}", error.errno or 0) from None
        undo.pop_all()
    return listener


def _open() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
