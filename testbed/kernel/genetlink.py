"""Generic netlink (linux/genetlink.h): families that are known by name, each with commands of its own.

A message is a netlink message whose type is the family's number, which the kernel gives out when the family's module
is loaded, and whose fixed part is the command and the family's version.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from pathlib import Path

from testbed.errors import KernelError
from testbed.kernel import nlmsg
from testbed.kernel.nlmsg import Message, Reply
from testbed.kernel.nlsocket import NetlinkSocket

NETLINK_GENERIC = 16

_CONTROLLER, _CONTROLLER_VERSION = 0x10, 2
_GET_FAMILY = 3
_FAMILY_ID, _FAMILY_NAME = 1, 2
_HEADER = struct.Struct("=BBH")


class Family:
    """One family's commands in the namespace at `netns`, or in the calling thread's own.

    Nothing is asked of the kernel before the first command, so a handle may be opened where there is no such family.
    """

    def __init__(self, name: str, version: int, netns: Path | None = None) -> None:
        self._name, self._version = name, version
        self._socket = NetlinkSocket(NETLINK_GENERIC, netns)
        self._number = 0

    def execute(self, commands: Iterable[tuple[int, int, bytes]]) -> list[KernelError | None]:
        """Send commands, each with its flags and attributes; what the kernel answered to each, None where done."""
        return self._socket.execute([self._message(*command) for command in commands])

    def dump(self, command: int, attributes: bytes = b"") -> list[Reply]:
        """Every message of a dump."""
        return self._socket.dump(self._message(command, 0, attributes))

    def close(self) -> None:
        """Release the handle."""
        self._socket.close()

    def _message(self, command: int, flags: int, attributes: bytes) -> Message:
        if not self._number:
            self._number = self._resolve()
        return Message(self._number, flags, _HEADER.pack(command, self._version, 0) + attributes)

    def _resolve(self) -> int:
        """The family's number; the kernel loads its module where it has one. KernelError ENOENT where not."""
        body = _HEADER.pack(_GET_FAMILY, _CONTROLLER_VERSION, 0) + nlmsg.text(_FAMILY_NAME, self._name)
        try:
            reply = self._socket.request(Message(_CONTROLLER, 0, body))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                raise KernelError(f"the kernel has no {self._name}", errno.ENOENT) from None
            raise
        return nlmsg.as_int(parse(reply)[_FAMILY_ID])


def parse(reply: Reply) -> dict[int, bytes]:
    """The attributes of one message."""
    return reply.attributes(_HEADER.size)
