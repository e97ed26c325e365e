"""Endpoints into slices: the fewest writes that take the slices of a Service from what they are to what they say. Pure.

At most 100 endpoints share a slice, and all endpoints of a slice have the same ports. An endpoint stays in the slice it
is in; new ones go where a slice is written anyway, then where most are already. There is always at least one slice per
address family, if need be with no endpoints.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from testbed.api.kinds import ENDPOINT_SLICE
from testbed.api.objects import Object, labels, metadata, name, namespace, owner_reference, spec, uid
from testbed.api.wellknown import HEADLESS_LABEL, LAST_CHANGE_TRIGGER_TIME, MANAGED_BY_LABEL, SERVICE_NAME_LABEL
from testbed.controllers.endpoint import Port, Ports

MANAGED_BY = "endpointslice-controller.k8s.io"
MOST_ENDPOINTS = 100
Endpoints = dict[str, dict[str, Any]]
"""By the uid of the pod."""


@dataclass
class Draft:
    """A slice as it should be, and as it is; `held` is None for one that is yet to be created."""

    ports: Ports
    endpoints: list[dict[str, Any]]
    held: Object | None = None

    @property
    def is_changed(self) -> bool:
        """Whether the slice must be written for its endpoints or ports."""
        return self.held is None or self.endpoints != _endpoints(self.held) or self.ports != ports_in(self.held)


@dataclass
class Writes:
    """What to do; slices that are right already are in none of the lists."""

    create: list[Object] = field(default_factory=list)
    update: list[Object] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)


def plan(
    service: Object, family: str, wanted: Mapping[Ports, Endpoints], held: Sequence[Object], trigger_time: str
) -> Writes:
    """The writes for one address family of a Service. `held` are its slices of that family, as last seen."""
    groups, by_ports = wanted or {(): {}}, _by_ports(held)
    filled = [draft for ports, endpoints in groups.items() for draft in fill(ports, endpoints, by_ports.get(ports, []))]
    drafts = [draft for draft in filled if draft.endpoints] or filled[:1]
    kept = {name(draft.held) for draft in drafts if draft.held is not None}
    obsolete = [slice_ for slice_ in held if name(slice_) not in kept]
    for draft in drafts:  # an obsolete slice that becomes another one spares a write, and a moment with neither
        if draft.held is None and obsolete:
            draft.held = obsolete.pop()
    return _writes(service, family, drafts, obsolete, trigger_time)


def fill(ports: Ports, endpoints: Endpoints, held: Sequence[Object]) -> list[Draft]:
    """Drafts that hold all `endpoints` and nothing else; at least one."""
    left = dict(endpoints)
    drafts = [Draft(ports, [left.pop(which) for which in _uids(slice_) if which in left], slice_) for slice_ in held]
    new = list(left.values())
    for draft in sorted(drafts, key=lambda draft: (not draft.is_changed, -len(draft.endpoints))):
        room = MOST_ENDPOINTS - len(draft.endpoints)
        draft.endpoints += new[:room]
        new = new[room:]
    chunks = [new[start : start + MOST_ENDPOINTS] for start in range(0, len(new), MOST_ENDPOINTS)]
    if not drafts and not chunks:
        chunks = [[]]
    return drafts + [Draft(ports, chunk) for chunk in chunks]


def ports_in(slice_: Object) -> Ports:
    """The ports of a slice, as `endpoint.ports_of` names them."""
    return tuple(
        sorted(
            Port(port.get("name", ""), port.get("protocol", "TCP"), port.get("port", 0), port.get("appProtocol", ""))
            for port in slice_.get("ports") or []
        )
    )


def hints_in(slices: Iterable[Object]) -> dict[str, str]:
    """By the uid of the pod, the zone for which its endpoint is meant."""
    endpoints = [endpoint for slice_ in slices for endpoint in _endpoints(slice_)]
    zones = {_uid(endpoint): (endpoint.get("hints") or {}).get("forZones") or [] for endpoint in endpoints}
    return {which: told[0]["name"] for which, told in zones.items() if told}


def labels_for(service: Object) -> dict[str, str]:
    """The labels of a Service's slices: its own, whose slice it is, and who writes it."""
    headless = {HEADLESS_LABEL: ""} if spec(service).get("clusterIP") == "None" else {}
    own = {label: value for label, value in labels(service).items() if label != HEADLESS_LABEL}
    return {**own, **headless, SERVICE_NAME_LABEL: name(service), MANAGED_BY_LABEL: MANAGED_BY}


def _writes(service: Object, family: str, drafts: Sequence[Draft], obsolete: list[Object], trigger_time: str) -> Writes:
    writes = Writes(delete=obsolete)
    taken = {name(draft.held) for draft in drafts if draft.held is not None} | {name(gone) for gone in obsolete}
    names = _names(service, family, taken)
    for draft in drafts:
        if draft.held is None:
            writes.create.append(_slice(service, family, draft, trigger_time, {"name": next(names)}))
        elif draft.is_changed or labels(draft.held) != labels_for(service):
            writes.update.append(_slice(service, family, draft, trigger_time, metadata(draft.held)))
    return writes


def _slice(service: Object, family: str, draft: Draft, trigger_time: str, held: Mapping[str, Any]) -> Object:
    notes = held.get("annotations") or {}
    return {
        "apiVersion": ENDPOINT_SLICE.api_version,
        "kind": ENDPOINT_SLICE.kind,
        "metadata": {
            **held,
            "namespace": namespace(service),
            "labels": labels_for(service),
            "annotations": {**notes, LAST_CHANGE_TRIGGER_TIME: trigger_time},
            "ownerReferences": [owner_reference(service)],
        },
        "addressType": family,
        "endpoints": draft.endpoints,
        "ports": [port.document() for port in draft.ports],
    }


def _names(service: Object, family: str, taken: Container[str]) -> Iterator[str]:
    """Names that are the same after a restart: a create whose answer was lost is met again, not repeated."""
    for number in itertools.count():
        digest = hashlib.sha256(f"{uid(service)} {family} {number}".encode()).hexdigest()
        candidate = f"{name(service)}-{digest[:5]}"
        if candidate not in taken:
            yield candidate


def _by_ports(slices: Sequence[Object]) -> dict[Ports, list[Object]]:
    grouped: dict[Ports, list[Object]] = {}
    for slice_ in slices:
        grouped.setdefault(ports_in(slice_), []).append(slice_)
    return grouped


def _endpoints(slice_: Object) -> list[dict[str, Any]]:
    return slice_.get("endpoints") or []


def _uids(slice_: Object) -> list[str]:
    return [_uid(endpoint) for endpoint in _endpoints(slice_)]


def _uid(endpoint: Mapping[str, Any]) -> str:
    return str((endpoint.get("targetRef") or {}).get("uid", ""))
