"""What this kernel can do, asked of the kernel: each device type, and what the proxy modes want of it.

Run as `python -m testbed.kernel.capabilities [NAME…]` in a scratch namespace (`unshare -nm`, with `-Ur` as a plain
user), it prints `{name: reason}` as JSON, the reason empty where all is well; all that it knows, or those that are
named. A kernel that has no such device type answers EOPNOTSUPP; any other answer, also that parameters are missing,
comes from the type itself.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

from testbed import shell
from testbed.errors import KernelError, TestbedError
from testbed.kernel import ipvs, netns, nlmsg
from testbed.kernel.nft import LibNft
from testbed.kernel.nlsocket import NETLINK_NETFILTER, NetlinkSocket
from testbed.kernel.rtnl import IFLA_IFNAME, IFLA_LINKINFO, RTM_NEWLINK

LINK_KINDS = ("veth", "bridge", "vxlan", "ipip", "gre", "geneve", "wireguard", "vrf", "dummy")
NFT_RULESET = """\
table ip testbed-probe {
    map endpoints {
        typeof ip daddr . meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport
    }
    map clients { type ipv4_addr . mark : mark; size 1000; flags dynamic,timeout; }
    set allowed { type ipv4_addr . inet_service; flags interval; }
    set hairpin { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        meta l4proto { tcp, udp } dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints
        fib saddr type local update @clients { ip saddr . meta mark timeout 10s : meta mark }
        ip saddr . tcp dport @allowed meta mark set meta mark or 0x4000
        ip daddr 192.0.2.1 reject with tcp reset
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
XTABLES = {
    "match": {"addrtype": 1, "comment": 0, "conntrack": 3, "mark": 1, "recent": 1, "statistic": 0},
    "target": {"DNAT": 2, "MARK": 2, "MASQUERADE": 0, "REJECT": 0},
}
"""The extensions of iptables(8) that the mode of that name uses, each with the revision that its program asks for."""
XTABLES_RULES = """\
*nat
:PROBE - [0:0]
-A PROBE -m comment --comment "probe" -m statistic --mode random --probability 0.5 -j MARK --or-mark 0x4000
-A PROBE -m recent --name PROBE --rcheck --seconds 10 --reap -j RETURN
-A PROBE -m addrtype --dst-type LOCAL -p tcp -m recent --name PROBE --set -j DNAT --to-destination 192.0.2.1:80
-A PROBE -m mark ! --mark 0x4000/0x4000 -j RETURN
-A PROBE -j MASQUERADE --random-fully
COMMIT
*filter
:PROBE - [0:0]
-A PROBE -m conntrack --ctstate NEW -j REJECT
COMMIT
"""
_COMPAT_GET = 11 << 8  # NFNL_SUBSYS_NFT_COMPAT << 8 | NFNL_MSG_COMPAT_GET
_COMPAT_NAME, _COMPAT_REVISION, _COMPAT_TYPE = 1, 2, 3
_NFGENMSG = struct.Struct("=BBH")
_INFO_KIND = 1
_IFINFO = struct.Struct("=BxHiII")
_NETLINK_ROUTE = 0
_NLM_F_CREATE_EXCL = nlmsg.NLM_F_CREATE | nlmsg.NLM_F_EXCL


def probe(names: Collection[str] = ()) -> dict[str, str]:
    """Ask for all of it, or what is named; only to be called in a scratch namespace, where the probes are left behind.

    `iptables` is what the kernel has, `iptables-restore` the program together with it.
    """
    checks: Mapping[str, Callable[[], None]] = {
        **{f"link {kind}": partial(_link, kind) for kind in LINK_KINDS},
        "nftables": _nftables,
        "iptables": _iptables,
        "iptables-restore": _iptables_restore,
        "ipvs": _ipvs,
        "overlay": _overlay,
    }
    return {name: _reason(checks[name]) for name in names or checks}


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


def missing_extensions(wanted: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Those of `wanted` (as XTABLES) that the kernel does not have: `match recent`. Asked for as iptables-nft(8) does,
    which has the kernel load a module where there is one."""
    netlink = NetlinkSocket(NETLINK_NETFILTER)
    try:
        return [
            f"{kind} {name}"
            for kind, extensions in wanted.items()
            for name, revision in extensions.items()
            if not _has_extension(netlink, kind, name, revision)
        ]
    finally:
        netlink.close()


def _has_extension(netlink: NetlinkSocket, kind: str, name: str, revision: int) -> bool:
    numbers = [_be32(_COMPAT_REVISION, revision), _be32(_COMPAT_TYPE, kind == "target")]
    body = b"".join([_NFGENMSG.pack(socket.AF_INET, 0, 0), nlmsg.text(_COMPAT_NAME, name), *numbers])
    try:
        netlink.request(nlmsg.Message(_COMPAT_GET, 0, body))
    except KernelError:
        return False
    return True


def _iptables() -> None:
    if missing := missing_extensions(XTABLES):
        raise KernelError(f"the kernel has no iptables {', '.join(missing)}")


def _be32(kind: int, value: int) -> bytes:
    return nlmsg.attribute(kind, struct.pack("!I", value))


def _iptables_restore() -> None:
    with tempfile.NamedTemporaryFile() as lock:
        shell.run(
            ["iptables-restore", "-w", "5"], stdin=XTABLES_RULES, env={**os.environ, "XTABLES_LOCKFILE": lock.name}
        )


def _ipvs() -> None:
    if reason := ipvs.why_not():
        raise KernelError(reason)


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
    os.write(1, json.dumps(probe(sys.argv[1:])).encode())
