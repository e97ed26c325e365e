"""From a URL path to what it addresses (API concepts, "Resource URIs")."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.api.kinds import KINDS, Kind
from testbed.api.objects import Key
from testbed.errors import NotFound

PROXY = "proxy"
"""The one subresource whose path goes on."""

_BY_PLURAL: dict[tuple[str, str], dict[str, Kind]] = {}
for _kind in KINDS:
    _BY_PLURAL.setdefault((_kind.group, _kind.version), {})[_kind.plural] = _kind


@dataclass(frozen=True, slots=True)
class Target:
    """A collection (no name), an object, or one of its subresources."""

    kind: Kind
    namespace: str
    name: str
    subresource: str

    @property
    def key(self) -> Key:
        """Which object."""
        return Key(self.namespace, self.name)

    @property
    def form(self) -> str:
        """`collection`, `object`, or the subresource's name."""
        if not self.name:
            return "collection"
        return self.subresource or "object"


def target(path: str) -> Target:
    """What `/api/v1/…` or `/apis/GROUP/VERSION/…` addresses. NotFound where nothing is served there."""
    group, version, *rest = _split(path)
    plurals = _BY_PLURAL.get((group, version), {})
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] in plurals:
        namespace, rest = rest[1], rest[2:]
    kind = plurals.get(rest[0]) if rest else None
    name, subresource = [*rest[1:], "", ""][:2]
    if subresource == PROXY:
        rest = rest[:3]  # what follows is for somebody else to understand
    is_served = (
        kind is not None
        and len(rest) <= 3
        and all(rest)
        and (kind.namespaced or not namespace)
        and (not name or not kind.namespaced or bool(namespace))
        and (not subresource or subresource in kind.subresources)
    )
    if kind is None or not is_served:
        raise nothing_there()
    return Target(kind, namespace, name, subresource)


def nothing_there() -> NotFound:
    """The refusal of a path at which nothing is served."""
    return NotFound("the server could not find the requested resource")


def _split(path: str) -> list[str]:
    parts = path.rstrip("/").split("/")
    if parts[:2] == ["", "api"]:
        parts = ["", *parts[2:]]
    elif parts[:2] == ["", "apis"]:
        parts = parts[2:]
    else:
        parts = []
    if len(parts) < 2:
        raise nothing_there()
    return parts
