"""Service rules: what to serve (pure), how to say it to the kernel (pure), and the loop that loads it."""

from collections.abc import Callable

from testbed.proxy.iptables import IptablesMode
from testbed.proxy.ipvs import IpvsMode
from testbed.proxy.kubeproxy import KubeProxyMode
from testbed.proxy.mode import Doors, Mode
from testbed.proxy.nftables import NftablesMode

MODES: dict[str, Callable[[Doors], Mode]] = {
    "nftables": lambda doors: NftablesMode(doors.nft, doors.links),
    "nftables-kubeproxy": lambda doors: KubeProxyMode(doors.nft, doors.links),
    "iptables": lambda doors: IptablesMode(doors.iptables, doors.nft, doors.links),
    "ipvs": lambda doors: IpvsMode(doors.nft, doors.ipvs, doors.links),
}
