"""What this kernel can do, asked of the kernel: each device type and the nftables features that are used.

Run as `python -m testbed.kernel.capabilities` in a scratch namespace (`unshare -nm`, with `-Ur` as a plain user), it
prints `{name: reason}` as JSON, the reason empty where all is well. A kernel that has no such device type answers
EOPNOTSUPP; any other answer, also that parameters are missing, comes from the type itself.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from testbed.errors import TestbedError
from testbed.kernel import netns, nlmsg
from testbed.kernel.nft import LibNft
from testbed.kernel.nlsocket import NetlinkSocket
from testbed.kernel.rtnl import IFLA_IFNAME, IFLA_LINKINFO, RTM_NEWLINK

LINK_KINDS = ("veth", "bridge", "vxlan", "ipip", "gre", "geneve", "wireguard", "vrf", "dummy")
NFT_RULESET = """\
table ip testbed-probe {
    map endpoints {
        typeof ip daddr . meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport
    }
    set hairpin { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        meta l4proto { tcp, udp } dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip daddr 192.0.2.1 masquerade fully-random
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state new ip daddr 192.0.2.1 reject
    }
}
"""
_INFO_KIND = 1
_IFINFO = struct.Struct("=BxHiII")
_NETLINK_ROUTE = 0
_NLM_F_CREATE_EXCL = nlmsg.NLM_F_CREATE | nlmsg.NLM_F_EXCL


def probe() -> dict[str, str]:
    """Ask for everything; only to be called in a scratch namespace, which the answers are left behind in."""
    checks: Mapping[str, Callable[[], None]] = {"nftables": _nftables, "overlay": _overlay}
    links = {f"link {kind}": _reason(lambda kind=kind: _link(kind)) for kind in LINK_KINDS}  # type: ignore[misc]
    return links | {name: _reason(check) for name, check in checks.items()}


def _reason(check: Callable[[], None]) -> str:
    try:
        check()
    except TestbedError as error:
        return str(error)
    return ""


def _link(kind: str) -> None:
    """Make one; success and every answer but "no such type" mean that the kernel has it."""
    info = nlmsg.nested(IFLA_LINKINFO, [nlmsg.text(_INFO_KIND, kind)])
    body = _IFINFO.pack(0, 0, 0, 0, 0) + nlmsg.text(IFLA_IFNAME, f"try-{kind}") + info
    netlink = NetlinkSocket(_NETLINK_ROUTE)
    try:
        (error,) = netlink.execute([nlmsg.Message(RTM_NEWLINK, _NLM_F_CREATE_EXCL, body)])
    finally:
        netlink.close()
    if error and error.errno in (errno.EOPNOTSUPP, errno.EPERM):
        raise error


def _nftables() -> None:
    nft = LibNft()
    try:
        nft.load(NFT_RULESET)
    finally:
        nft.close()


def _overlay() -> None:
    """An overlay over the root with its upper layer on a tmpfs, as the netns runtime mounts it for each container."""
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        netns.mount("tmpfs", scratch, "tmpfs", 0)
        try:
            for name in ("upper", "work", "merged"):
                (scratch / name).mkdir()
            layers = f"lowerdir=/usr,upperdir={scratch}/upper,workdir={scratch}/work"
            netns.mount("overlay", scratch / "merged", "overlay", 0, layers)
            netns.umount(scratch / "merged")
        finally:
            netns.umount(scratch)


if __name__ == "__main__":
    os.chdir("/")
    os.write(1, json.dumps(probe()).encode())
