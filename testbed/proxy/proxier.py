"""Puts virtual ports into the kernel of one node, by the mode that is wanted, and keeps them there.

Level-triggered: each sync is given the whole, and tells the mode which Services may differ from what it loaded last. At
start, after a stranger's edit and after any refusal everything is loaded again. A change of mode loads the new one
before the old one goes: connections that exist follow conntrack, and new ones find one of the two at any moment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from testbed.api.objects import Key
from testbed.errors import KernelError
from testbed.proxy.conntrack import stale_flows
from testbed.proxy.mode import Doors, Flows, Mode
from testbed.proxy.services import Snapshot
from testbed.proxy.virtualport import Here, Ports, VirtualPort

log = logging.getLogger(__name__)

Modes = Mapping[str, Callable[[Doors], Mode]]


@dataclass(frozen=True)
class Synced:
    """What one sync did."""

    is_full: bool
    """Everything was loaded, not only what had changed."""
    forgotten_flows: int


class Proxier:
    """The service rules of one node. Plain synchronous code, called by one thread at a time."""

    def __init__(self, doors: Doors, flows: Flows, modes: Modes) -> None:
        self._doors, self._flows, self._modes = doors, flows, modes
        self._name = ""
        self._mode: Mode | None = None
        self._leaving = {name: make(doors) for name, make in modes.items()}
        self._loaded: Snapshot | None = None
        self._here: Here | None = None

    @property
    def sequence(self) -> int:
        """Of the snapshot that the kernel holds; 0 where nobody knows what it holds."""
        return self._loaded.sequence if self._loaded else 0

    @property
    def mode(self) -> Mode | None:
        """The one that serves; None before the first sync."""
        return self._mode

    def was_edited(self) -> bool:
        """Whether a stranger has been at the rules since the last call; if so, the next sync loads everything."""
        if self._mode is None or not self._mode.was_edited():
            return False
        self._loaded = None
        return True

    def sync(self, wanted: Snapshot, here: Here, mode: str) -> Synced:
        """Make the kernel serve exactly this, by that mode.

        KernelError where it refuses, after which the next call loads everything.
        """
        before = self._loaded if (mode, here) == (self._name, self._here) else None
        self._loaded = None
        serving = self._enter(mode)
        which = frozenset(wanted.ports) if before is None else _differing(before, wanted)
        is_full = before is None or not _change(serving, before.ports, wanted.ports, which)
        if is_full:
            serving.load(wanted.ports, here)
        self._leave()
        forgotten = self._forget_stale_flows({} if before is None else before.ports, wanted.ports, which)
        self._loaded, self._here = wanted, here
        return Synced(is_full, forgotten)

    def _enter(self, name: str) -> Mode:
        if self._mode is None or name != self._name:
            if self._mode is not None:
                self._leaving[self._name] = self._mode
            self._mode, self._name = self._leaving.pop(name, None) or self._modes[name](self._doors), name
        return self._mode

    def _leave(self) -> None:
        """The other modes go, and with them what a predecessor left behind."""
        for name, mode in list(self._leaving.items()):
            if mode.teardown():
                del self._leaving[name]

    def _forget_stale_flows(self, before: Ports, after: Ports, which: Iterable[Key]) -> int:
        changed = [port for each in which for port in after.get(each, ())]
        known = {_identity(port): port.serving for each in which for port in before.get(each, ())}
        lost = [port for port in changed if _may_have_stale_flows(port, known.get(_identity(port)))]
        if not lost:
            return 0
        stale = stale_flows(self._flows.udp_flows(), lost)
        self._flows.delete(stale)
        return len(stale)


def _differing(before: Snapshot, wanted: Snapshot) -> frozenset[Key]:
    """The Services that may differ, as the newer snapshot says if it was asked for since the older one."""
    if wanted.changed is not None:
        return wanted.changed
    every = before.ports.keys() | wanted.ports.keys()
    return frozenset(which for which in every if before.ports.get(which) is not wanted.ports.get(which))


def _change(mode: Mode, before: Ports, after: Ports, which: frozenset[Key]) -> bool:
    try:
        return mode.change(before, after, which)
    except KernelError as error:
        log.warning("the rules are not as they were left, loading all of them: %s", error)
        return False


def _identity(port: VirtualPort) -> tuple[object, ...]:
    return port.service, port.cluster_ip, port.protocol, port.port, port.node_port, port.public_ips


def _may_have_stale_flows(port: VirtualPort, before: frozenset[object] | None) -> bool:
    """Listing all flows costs what they are many, so only where an endpoint has gone, or the first one has come."""
    if port.protocol != "udp" or not port.serving:
        return False
    return not before or not before <= port.serving
