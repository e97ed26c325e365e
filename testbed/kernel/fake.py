"""The kernel without a kernel: `Links` and `Nft` in memory, held to the real ones by the same contract tests."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from testbed.errors import KernelError
from testbed.kernel.links import STATIC_ROUTE, Hop, LinkState, Peer, Vxlan


@dataclass
class _Device:
    state: LinkState
    peer: tuple[Path | None, str] | None = None
    vxlan: Vxlan | None = None
    addresses: set[IPv4Interface] = field(default_factory=set)
    routes: dict[IPv4Network, tuple[int, Hop]] = field(default_factory=dict)
    blackholes: dict[int, set[IPv4Network]] = field(default_factory=dict)
    neighbours: dict[IPv4Address, str] = field(default_factory=dict)
    fdb: dict[str, IPv4Address] = field(default_factory=dict)


class FakeLinks:
    """Devices in memory. Handles made by `enter` share one machine, so a veth's other end is really there."""

    def __init__(self, netns: Path | None = None, machine: dict[Path | None, dict[str, _Device]] | None = None) -> None:
        self._machine = {} if machine is None else machine
        self._netns = netns
        self._next_index = 2
        self._devices = self._machine.setdefault(netns, {"lo": _Device(_state("lo", "", 1, 65536, is_up=False))})

    def ensure_bridge(self, name: str, *, mtu: int, mac: str = "") -> None:
        """See Links."""
        self._ensure(name, "bridge", mtu=mtu, mac=mac)

    def ensure_dummy(self, name: str) -> None:
        """See Links."""
        if name not in self._devices:
            self._ensure(name, "dummy", mtu=1500, mac="")
        self.ensure_up(name)

    def ensure_veth(self, name: str, peer: Peer, *, mtu: int, mac: str = "", master: str = "") -> None:
        """See Links."""
        if master:
            self._device(master)
        there = self.enter(peer.netns)
        ends = (self._devices.get(name), there._devices.get(peer.name))
        pair = ((peer.netns, peer.name), (self._netns, name))
        if [end and end.peer for end in ends] != list(pair):
            self.delete_link(name)
            there.delete_link(peer.name)
        here = self._ensure(name, "veth", mtu=mtu, mac=mac)
        here.state = replace(here.state, master=master)
        here.peer = pair[0]
        there._ensure(peer.name, "veth", mtu=mtu, mac=peer.mac).peer = pair[1]

    def ensure_vxlan(self, name: str, vxlan: Vxlan) -> None:
        """See Links."""
        self._device(vxlan.device)
        have = self._devices.get(name)
        if have and (not have.vxlan or replace(have.vxlan, mtu=vxlan.mtu, mac=vxlan.mac) != vxlan):
            self.delete_link(name)
        self._ensure(name, "vxlan", mtu=vxlan.mtu, mac=vxlan.mac).vxlan = vxlan

    def ensure_port(self, bridge: str, name: str) -> None:
        """See Links."""
        self._device(bridge)
        device = self._device(name)
        device.state = replace(device.state, master=bridge)

    def ensure_up(self, name: str) -> None:
        """See Links."""
        device = self._device(name)
        device.state = replace(device.state, is_up=True)

    def set_addresses(self, device: str, addresses: Iterable[IPv4Interface]) -> None:
        """See Links."""
        self._device(device).addresses = set(addresses)

    def ensure_addresses(self, device: str, addresses: Iterable[IPv4Interface]) -> None:
        """See Links."""
        self._device(device).addresses.update(addresses)

    def delete_addresses(self, device: str, addresses: Iterable[IPv4Interface]) -> None:
        """See Links."""
        if device in self._devices:
            self._devices[device].addresses.difference_update(addresses)

    def set_routes(self, device: str, routes: Mapping[IPv4Network, Hop], *, protocol: int = STATIC_ROUTE) -> None:
        """See Links."""
        kept = {to: route for to, route in self._device(device).routes.items() if route[0] != protocol}
        self._device(device).routes = kept | {to: (protocol, hop) for to, hop in routes.items()}

    def ensure_unreachable(self, network: IPv4Network) -> None:
        """See Links."""
        self._device("lo").routes.setdefault(network, (STATIC_ROUTE, Hop()))

    def set_blackholes(self, networks: Collection[IPv4Network], *, protocol: int) -> None:
        """See Links."""
        self._device("lo").blackholes[protocol] = set(networks)

    def set_neighbours(self, device: str, neighbours: Mapping[IPv4Address, str]) -> None:
        """See Links."""
        self._device(device).neighbours = dict(neighbours)

    def set_fdb(self, device: str, entries: Mapping[str, IPv4Address]) -> None:
        """See Links."""
        self._device(device).fdb = dict(entries)

    def delete_link(self, name: str) -> None:
        """See Links."""
        gone = self._devices.pop(name, None)
        if gone and gone.peer:
            self._machine[gone.peer[0]].pop(gone.peer[1], None)
        for device in self._devices.values():
            if gone and device.state.master == name:
                device.state = replace(device.state, master="")

    def links(self) -> list[LinkState]:
        """See Links."""
        return [device.state for device in self._devices.values()]

    def addresses(self, device: str) -> set[IPv4Interface]:
        """See Links."""
        return set(self._device(device).addresses)

    def routes(self, device: str, *, protocol: int = STATIC_ROUTE) -> dict[IPv4Network, Hop]:
        """See Links."""
        return {to: hop for to, (origin, hop) in self._device(device).routes.items() if origin == protocol}

    def blackholes(self, *, protocol: int) -> set[IPv4Network]:
        """See Links."""
        return set(self._device("lo").blackholes.get(protocol, ()))

    def neighbours(self, device: str) -> dict[IPv4Address, str]:
        """See Links."""
        return dict(self._device(device).neighbours)

    def fdb(self, device: str) -> dict[str, IPv4Address]:
        """See Links."""
        return dict(self._device(device).fdb)

    def enter(self, netns: Path) -> FakeLinks:
        """See Links. Every path is a namespace."""
        return FakeLinks(netns, self._machine)

    def close(self) -> None:
        """See Links."""

    def _ensure(self, name: str, kind: str, *, mtu: int, mac: str) -> _Device:
        device = self._devices.get(name)
        if not device or device.state.kind != kind:
            self.delete_link(name)
            index = max((each.state.index for each in self._devices.values()), default=0) + 1
            device = self._devices[name] = _Device(_state(name, kind, index, mtu, is_up=True))
        device.state = replace(device.state, mtu=mtu, mac=mac.lower() or device.state.mac, is_up=True)
        return device

    def _device(self, name: str) -> _Device:
        if name not in self._devices:
            raise KernelError(f"ip link show {name}: No such device", errno.ENODEV)
        return self._devices[name]


class FakeNft:
    """Remembers the scripts that were loaded; `refuse` makes the next load fail, as the kernel may."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self._refusal: KernelError | None = None
        self._is_edited = False

    def load(self, script: str) -> None:
        """See Nft."""
        refusal, self._refusal = self._refusal, None
        if refusal:
            raise refusal
        self.loaded.append(script)

    def list(self, what: str = "ruleset", *, terse: bool = False) -> str:
        """Every script that was loaded, in order; `what` is not looked at."""
        return "\n".join(self.loaded) if what or terse else ""

    def was_edited(self) -> bool:
        """See Nft."""
        is_edited, self._is_edited = self._is_edited, False
        return is_edited

    def close(self) -> None:
        """See Nft."""

    def refuse(self, refusal: KernelError) -> None:
        """Let the next load fail with this error."""
        self._refusal = refusal

    def edit(self) -> None:
        """As if a stranger had changed the rules."""
        self._is_edited = True


def _state(name: str, kind: str, index: int, mtu: int, *, is_up: bool) -> LinkState:
    mac = "00:00:00:00:00:00" if name == "lo" else f"02:00:00:00:00:{index:02x}"
    return LinkState(name=name, kind=kind, index=index, mtu=mtu, mac=mac, is_up=is_up)
