"""Connection tracking of one network namespace (ctnetlink): read the UDP entries, delete some.

Source: linux/netfilter/nfnetlink_conntrack.h; the filter of a dump: net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from testbed.kernel import nlmsg
from testbed.kernel.nlmsg import Message, Reply
from testbed.kernel.nlsocket import NETLINK_NETFILTER, NetlinkSocket

log = logging.getLogger(__name__)

_GET, _DELETE = 0x0101, 0x0102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_…
_TUPLE_ORIG, _TUPLE_REPLY = 1, 2
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_SOURCE, _DESTINATION = 1, 2
_PROTOCOL, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_FILTER, _FILTER_ORIGINAL, _FILTER_REPLY, _BY_PROTOCOL = 25, 1, 2, 1 << 3
_NFGENMSG = bytes([socket.AF_INET, 0, 0, 0])
_UDP_ONLY = nlmsg.nested(
    _TUPLE_ORIG, [nlmsg.nested(_TUPLE_PROTO, [nlmsg.u8(_PROTOCOL, socket.IPPROTO_UDP)])]
) + nlmsg.nested(_FILTER, [nlmsg.u32(_FILTER_ORIGINAL, _BY_PROTOCOL), nlmsg.u32(_FILTER_REPLY, 0)])
"""Kernels from 5.8 on then leave out what is not UDP; older ones ignore it."""


@dataclass(frozen=True)
class Flow:
    """One entry: what the first packet carried, and who answers."""

    source: IPv4Address
    source_port: int
    destination: IPv4Address
    destination_port: int
    answers: IPv4Address
    """The endpoint after translation; equal to `destination` where there was none."""
    original: bytes
    """The original tuple as the kernel gave it, by which it deletes the entry."""


class Conntrack:
    """The connection table of the namespace at `netns`, or of the calling thread's own."""

    def __init__(self, netns: Path | None = None) -> None:
        self._socket = NetlinkSocket(NETLINK_NETFILTER, netns)
        self._prefix = f"nsenter --net={netns} " if netns else ""

    def udp_flows(self) -> list[Flow]:
        """All UDP entries of IPv4."""
        replies = self._socket.dump(Message(_GET, 0, _NFGENMSG + _UDP_ONLY))
        return [flow for reply in replies if (flow := _parse_udp(reply))]

    def delete(self, flows: Iterable[Flow]) -> None:
        """Forget these flows; one that has gone by itself is no error."""
        messages = []
        for flow in flows:
            log.info(
                "%sconntrack -D -p udp -s %s --sport %d -d %s --dport %d",
                self._prefix, flow.source, flow.source_port, flow.destination, flow.destination_port,
            )  # fmt: skip
            messages.append(Message(_DELETE, 0, _NFGENMSG + nlmsg.nested(_TUPLE_ORIG, [flow.original])))
        for error in self._socket.execute(messages):
            if error and error.errno != errno.ENOENT:
                raise error

    def close(self) -> None:
        """Release the handle."""
        self._socket.close()


def _parse_udp(reply: Reply) -> Flow | None:
    found = reply.attributes(len(_NFGENMSG))
    original = nlmsg.parse_attributes(found[_TUPLE_ORIG])
    protocol = nlmsg.parse_attributes(original[_TUPLE_PROTO])
    if protocol[_PROTOCOL] != bytes([socket.IPPROTO_UDP]):
        return None
    addresses = nlmsg.parse_attributes(original[_TUPLE_IP])
    answers = nlmsg.parse_attributes(nlmsg.parse_attributes(found[_TUPLE_REPLY])[_TUPLE_IP])
    return Flow(
        source=IPv4Address(addresses[_SOURCE]),
        source_port=int.from_bytes(protocol[_SOURCE_PORT], "big"),
        destination=IPv4Address(addresses[_DESTINATION]),
        destination_port=int.from_bytes(protocol[_DESTINATION_PORT], "big"),
        answers=IPv4Address(answers[_SOURCE]),
        original=found[_TUPLE_ORIG],
    )
