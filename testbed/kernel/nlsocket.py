"""A netlink socket that stays in the namespace where it was opened, whichever thread uses it.

pyroute2 0.9 is not used: its synchronous sockets open anew in every thread that touches them, in *that* thread's
namespace (so a handle handed to `asyncio.to_thread` silently speaks to another one), and importing it costs 20 MB of
anonymous memory and 0.2 s of CPU in each daemon. The wire format that is needed here is small: `kernel.nlmsg`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from testbed.errors import KernelError
from testbed.kernel import netns as namespaces
from testbed.kernel.nlmsg import (
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MSG,
    Message,
    Reply,
    as_text,
    decode,
    parse_attributes,
)

NETLINK_ROUTE = socket.NETLINK_ROUTE
NETLINK_NETFILTER = 12

_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _CAP_ACK, _EXT_ACK, _STRICT_CHECK = 1, 10, 11, 12
_RECEIVE_BYTES = 1 << 17
_BATCH = 64
"""Messages to a system call: their acknowledgements must fit into the socket's receive buffer."""
_ATTEMPTS = 8
"""Of a dump that the kernel marks as interrupted by a change."""


def open_socket(protocol: int, netns: Path | None, groups: Sequence[int] = ()) -> socket.socket:
    """A bound netlink socket of the namespace, subscribed to the multicast groups."""

    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        sock.bind((0, 0))
        for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHECK):
            sock.setsockopt(_SOL_NETLINK, option, 1)
        for group in groups:
            sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        return sock

    return opened() if netns is None else namespaces.inside(netns, opened)


class NetlinkSocket:
    """Requests and dumps, one at a time; threads may share it."""

    def __init__(self, protocol: int, netns: Path | None = None) -> None:
        self._socket = open_socket(protocol, netns)
        self._lock = threading.Lock()
        self._sequence = 0

    def execute(self, messages: Sequence[Message]) -> list[KernelError | None]:
        """Send the messages in as few system calls as possible; what the kernel answered to each, None where done.

        All are tried, in order, whatever happens to those before.
        """
        with self._lock:
            batches = [messages[at : at + _BATCH] for at in range(0, len(messages), _BATCH)]
            return [answer for batch in batches for answer in self._acknowledged(batch)]

    def request(self, message: Message) -> Reply:
        """The one message that answers; KernelError with the kernel's errno where it refuses."""
        with self._lock:
            sequence = self._send([message], 0)
            while True:
                for reply in self._receive():
                    if reply.sequence == sequence:
                        _raise_error(reply)
                        return reply

    def dump(self, message: Message) -> list[Reply]:
        """Every message of a dump; one that was interrupted by a change is asked for again."""
        with self._lock:
            for _ in range(_ATTEMPTS):
                replies, is_consistent = self._dumped(message)
                if is_consistent:
                    return replies
        raise KernelError("the kernel's tables changed during each of several dumps", errno.EINTR)

    def interface(self, request: int, name: str) -> bytes:
        """One fact about a device of the namespace (netdevice(7)): any socket answers, and faster than with a message.

        `request` is SIOCGIFINDEX or the like; the answer's first four bytes are returned.
        """
        try:
            answer = fcntl.ioctl(self._socket, request, struct.pack("=16s24x", name.encode()))
        except OSError as error:
            raise KernelError(error.strerror or str(error), error.errno or 0) from None
        return answer[16:20]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, batch: Sequence[Message], flags: int) -> int:
        first = self._sequence + 1
        self._sequence += len(batch)
        data = b"".join(message.encode(first + at, flags) for at, message in enumerate(batch))
        try:
            self._socket.send(data)
        except OSError as error:
            raise KernelError(f"netlink: {error.strerror}", error.errno or 0) from None
        return first

    def _receive(self) -> Iterator[Reply]:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except OSError as error:
            raise KernelError(f"netlink: {error.strerror}", error.errno or 0) from None
        return decode(data)

    def _acknowledged(self, batch: Sequence[Message]) -> list[KernelError | None]:
        first = self._send(batch, NLM_F_ACK)
        answers: dict[int, KernelError | None] = {}
        while len(answers) < len(batch):
            for reply in self._receive():
                at = reply.sequence - first
                if reply.type == NLMSG_ERROR and 0 <= at < len(batch):
                    answers[at] = _error(reply)
        return [answers[at] for at in range(len(batch))]

    def _dumped(self, message: Message) -> tuple[list[Reply], bool]:
        sequence = self._send([message], NLM_F_DUMP)
        replies: list[Reply] = []
        is_consistent = True
        while True:
            for reply in self._receive():
                if reply.sequence != sequence:
                    continue
                is_consistent = is_consistent and not reply.flags & NLM_F_DUMP_INTR
                _raise_error(reply)
                if reply.type == NLMSG_DONE:
                    return replies, is_consistent
                replies.append(reply)


class Subscription:
    """Messages that the kernel multicasts about changes in one namespace."""

    def __init__(self, protocol: int, groups: Sequence[int], netns: Path | None = None) -> None:
        self._socket = open_socket(protocol, netns, groups)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """For an event loop: readable when something has changed."""
        return self._socket.fileno()

    def drain(self, wanted: Callable[[Reply], bool]) -> bool:
        """Read all that has arrived; whether some of it was wanted, or was lost because it came too fast."""
        found = False
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True
            else:
                found = any(wanted(reply) for reply in decode(data)) or found

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _error(reply: Reply) -> KernelError | None:
    """errno, and the sentence that newer kernels add (extended acknowledgement); None for errno 0."""
    number = -int(struct.unpack_from("=i", reply.body)[0])
    if not number:
        return None
    said = ""
    if reply.flags & NLM_F_ACK_TLVS:
        said = as_text(parse_attributes(reply.body, 20).get(NLMSGERR_ATTR_MSG, b""))
    return KernelError(f"{os.strerror(number)}{': ' if said else ''}{said}", number)


def _raise_error(reply: Reply) -> None:
    if reply.type in (NLMSG_ERROR, NLMSG_DONE) and (error := _error(reply)):
        raise error
