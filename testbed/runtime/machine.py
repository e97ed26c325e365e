"""What a network could leave behind in the machine's own namespaces: seen before `up`, compared by `down`.

    links   routes of the main tables   nft tables (root only)   named network namespaces

A link counts with its master, because that tells whose it is: the links of other containers come and go with Docker's
bridges while a cluster stands, and are none of our leftovers.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import KernelError, MachineLacks, TimedOut
from testbed.kernel.netlink import NetlinkLinks
from testbed.kernel.nft import LibNft
from testbed.waiting import wait_until

NAMED_NETNS = Path("/run/netns")
DOCKER_BRIDGES = ("docker", "br-")
SHOWN = 6
LETS_GO_WITHIN_S = 5.0


@dataclass(frozen=True)
class Machine:
    """One look at the machine. `tables` is None where this user may not see them."""

    links: Mapping[str, str]
    """Name to master, empty without one."""
    routes: frozenset[str]
    """`DEVICE DESTINATION GATEWAY MASK`, in the kernel's hexadecimal, and the same for IPv6."""
    tables: frozenset[str] | None
    namespaces: frozenset[str]

    @classmethod
    def seen_now(cls) -> Machine:
        """The machine as it is."""
        links = NetlinkLinks()
        try:
            states = links.links()
        finally:
            links.close()
        return cls({state.name: state.master for state in states}, frozenset(_routes()), _tables(), _namespaces())

    def to_json(self) -> str:
        """For a label or an argument; `from_json` reads it back."""
        kinds = {"routes": self.routes, "tables": self.tables, "namespaces": self.namespaces}
        sets = {kind: None if items is None else sorted(items) for kind, items in kinds.items()}
        return json.dumps({"links": dict(self.links), **sets})

    @classmethod
    def from_json(cls, text: str) -> Machine:
        """The machine that `to_json` wrote."""
        doc = json.loads(text)
        tables = None if doc["tables"] is None else frozenset(doc["tables"])
        return cls(doc["links"], frozenset(doc["routes"]), tables, frozenset(doc["namespaces"]))


@dataclass(frozen=True)
class Comparison:
    """What was compared, a line each, and what is new and belongs to nobody else, a line each."""

    checked: tuple[str, ...]
    leftovers: tuple[str, ...]


def compare(before: Machine, now: Machine) -> Comparison:
    """Whether the machine is as it was, apart from what others have done meanwhile."""
    checked: list[str] = []
    leftovers: list[str] = []
    for kind, then, items in _kinds(before, now):
        new = items - then
        ours = {item for item in new if MAY_BE_OURS[kind](item, now.links)}
        others = f"{len(new - ours)} more of others'" if new - ours else ""
        state = others or ("as before" if items >= then else "some gone since")
        checked.append(f"{len(items)} {kind}, {f'new: {_few(ours)}' if ours else state}")
        leftovers += [f"{kind}: {item}" for item in sorted(ours)]
    return Comparison(tuple(checked), tuple(leftovers))


def settled(look: Callable[[], Comparison]) -> Comparison:
    """Compare until nothing is left over, for a few seconds at most.

    The kernel takes a namespace apart after its last process has gone, and somebody else's container is half made now
    and then.
    """
    seen: list[Comparison] = []

    def is_clean() -> bool:
        seen.append(look())
        return not seen[-1].leftovers

    with suppress(TimedOut):
        wait_until(is_clean, LETS_GO_WITHIN_S, "a machine without leftovers", every_s=0.1)
    return seen[-1]


def _is_link_of_nobody(item: str, masters: Mapping[str, str]) -> bool:
    """A link, or a route through one, that is neither one of Docker's bridges nor a port of one."""
    name = item.partition(" ")[0]
    return not (masters.get(name) or name).startswith(DOCKER_BRIDGES)


MAY_BE_OURS: Mapping[str, Callable[[str, Mapping[str, str]], bool]] = {
    "links": _is_link_of_nobody,
    "routes": _is_link_of_nobody,
    "nft tables": lambda item, _: "testbed" in item,
    "named network namespaces": lambda item, _: item.startswith("testbed-"),
}
"""Of what is new: whether the testbed may have made it. Tables and namespaces of its own bear its name."""


def _kinds(before: Machine, now: Machine) -> Iterator[tuple[str, frozenset[str], frozenset[str]]]:
    yield "links", frozenset(before.links), frozenset(now.links)
    yield "routes", before.routes, now.routes
    if before.tables is not None and now.tables is not None:
        yield "nft tables", before.tables, now.tables
    yield "named network namespaces", before.namespaces, now.namespaces


def _few(items: frozenset[str] | set[str]) -> str:
    shown = sorted(items)[:SHOWN]
    return ", ".join(shown) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")


def _routes() -> Iterator[str]:
    for line in _lines(Path("/proc/net/route"))[1:]:
        device, destination, gateway, _flags, _refs, _use, _metric, mask, *_ = line.split()
        yield f"{device} {destination} {gateway} {mask}"
    for line in _lines(Path("/proc/net/ipv6_route")):
        destination, length, _source, _source_length, gateway, *_, device = line.split()
        yield f"{device} {destination}/{length} {gateway}"


def _tables() -> frozenset[str] | None:
    try:
        nft = LibNft()
    except (KernelError, MachineLacks):
        return None
    try:
        return frozenset(nft.list("tables").splitlines())
    except KernelError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return None
        raise
    finally:
        nft.close()


def _namespaces() -> frozenset[str]:
    return frozenset(path.name for path in NAMED_NETNS.iterdir()) if NAMED_NETNS.is_dir() else frozenset()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
