"""Forget tracked connections, so that a trial begins with none: ctnetlink (linux/netfilter/nfnetlink_conntrack.h)."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address

from testbed.errors import KernelError, MachineLacks
from testbed.kernel import nlmsg
from testbed.kernel.nlmsg import Message, Reply
from testbed.kernel.nlsocket import NETLINK_NETFILTER, NetlinkSocket

_GET, _DELETE = 0x0101, 0x0102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, _DELETE
_TUPLE_ORIG, _TUPLE_REPLY = 1, 2
_TUPLE_IP = 1
_SOURCE, _DESTINATION = 1, 2
_HEADER = bytes([socket.AF_INET, 0, 0, 0])  # struct nfgenmsg
_REFUSALS = {errno.EPERM, errno.EACCES}


def delete_connections(target: IPv4Address) -> int:
    """Forget every tracked connection to `target`, translated ones included; how many there were.

    MachineLacks where this process may not (NET_ADMIN).
    """
    netlink = NetlinkSocket(NETLINK_NETFILTER)
    try:
        originals = [original for reply in netlink.dump(Message(_GET, 0, _HEADER)) if (original := _to(reply, target))]
        messages = [Message(_DELETE, 0, _HEADER + nlmsg.nested(_TUPLE_ORIG, [original])) for original in originals]
        for error in netlink.execute(messages):
            if error and error.errno != errno.ENOENT:
                raise error
    except KernelError as error:
        if error.errno in _REFUSALS:
            raise MachineLacks("deleting tracked connections needs the capability NET_ADMIN") from None
        raise
    finally:
        netlink.close()
    return len(originals)


def _to(reply: Reply, target: IPv4Address) -> bytes | None:
    """The original tuple of a connection whose first packet went to `target`, or is answered by it."""
    found = reply.attributes(len(_HEADER))
    goes_to = _addresses(found[_TUPLE_ORIG]).get(_DESTINATION)
    answered_by = _addresses(found[_TUPLE_REPLY]).get(_SOURCE)
    return found[_TUPLE_ORIG] if target.packed in (goes_to, answered_by) else None


def _addresses(data: bytes) -> dict[int, bytes]:
    return nlmsg.parse_attributes(nlmsg.parse_attributes(data)[_TUPLE_IP])
