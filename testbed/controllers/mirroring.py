"""Endpoints that somebody wrote by hand, mirrored into EndpointSlices: nodes read nothing else (KEP-0752).

Where a Service has no selector, each set of ports of its Endpoints object becomes one slice of at most 1000 endpoints.
The slices go when the Endpoints go, when the Service gets a selector, and when the label skip-mirror appears.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from testbed.api.kinds import ENDPOINT_SLICE
from testbed.api.objects import Key, Object, is_deleting, labels, metadata, name, namespace, owner_reference, uid
from testbed.api.wellknown import LAST_CHANGE_TRIGGER_TIME, MANAGED_BY_LABEL, SERVICE_NAME_LABEL, SKIP_MIRROR_LABEL
from testbed.controllers.cluster import Cluster, service_selector
from testbed.controllers.endpoint import IPV4, IPV6, Port, Ports
from testbed.controllers.events import Recorder
from testbed.controllers.loop import Loop, together
from testbed.controllers.slicing import ports_in

MANAGED_BY = "endpointslicemirroring-controller.k8s.io"
MOST_ADDRESSES = 1000
"""Of one subset, and of one slice."""
LEADER_ANNOTATION = "control-plane.alpha.kubernetes.io/leader"
"""Of an Endpoints object that is no more than a lock."""
OWN_ANNOTATIONS = {LAST_CHANGE_TRIGGER_TIME, "kubectl.kubernetes.io/last-applied-configuration"}
"""What an Endpoints object says of itself."""

Group = tuple[str, Ports]
"""Address family and ports: what all endpoints of a slice share."""


class Mirroring:
    """The controller."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._client = cluster, cluster.client
        self._recorder = Recorder(cluster.client, "endpoint-slice-mirroring-controller")
        self._mirrors = cluster.slices.index(_mirrored)
        self.loop = Loop("endpointslice-mirroring", self.reconcile)
        cluster.services.observe(self._service_changed)
        cluster.endpoints.observe(self._endpoints_changed)
        cluster.slices.observe(self._slice_changed)

    async def reconcile(self, which: Key) -> None:
        """Have the slices say what the Endpoints say, or be none."""
        endpoints, service = self._cluster.endpoints.items.get(which), self._cluster.services.items.get(which)
        held = [slice_ for slice_ in self._mirrors[which] if not is_deleting(slice_)]
        is_ours = endpoints and service and is_mirrored(endpoints) and not service_selector(service)
        wanted = mirrors(endpoints, held) if endpoints and is_ours else []
        kept = {name(slice_): slice_ for slice_ in held}
        await together(*(self._write(slice_, kept.pop(name(slice_), None)) for slice_ in wanted))
        await together(*(self._delete(slice_) for slice_ in kept.values()))
        if endpoints and is_ours and (skipped := addresses_skipped(endpoints)):
            text = f"A max of {MOST_ADDRESSES} addresses can be mirrored to EndpointSlices per Endpoints subset. "
            text += f"{skipped} addresses were skipped"
            await self._recorder.warning(endpoints, "TooManyAddressesToMirror", text)

    async def _write(self, wanted: Object, held: Object | None) -> None:
        if held is None:
            self._cluster.slices.learn(await self._client.create(wanted))
        elif _said(held) != _said(wanted):
            meta = {**metadata(wanted), "resourceVersion": metadata(held)["resourceVersion"]}
            self._cluster.slices.learn(await self._client.update({**wanted, "metadata": meta}))

    async def _delete(self, slice_: Object) -> None:
        await self._client.delete(ENDPOINT_SLICE, name(slice_), namespace(slice_), uid=uid(slice_))

    def _service_changed(self, which: Key, old: Object | None, new: Object | None) -> None:
        if bool(service_selector(old or {})) != bool(service_selector(new or {})) or not (old and new):
            self._enqueue(which)

    def _endpoints_changed(self, which: Key, _: Object | None, __: Object | None) -> None:
        self._enqueue(which)

    def _slice_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        """Somebody else's hand on a slice of ours is set right."""
        for which in {*_mirrored(old or {}), *_mirrored(new or {})}:
            self._enqueue(which)

    def _enqueue(self, which: Key) -> None:
        """Not for the many Endpoints of Services with a selector, which have nothing to be mirrored or taken away."""
        service = self._cluster.services.items.get(which)
        if self._mirrors[which] or (service is not None and not service_selector(service)):
            self.loop.enqueue(which)


def is_mirrored(endpoints: Object) -> bool:
    """Whether the Endpoints object is one that wants to be mirrored."""
    is_lock = LEADER_ANNOTATION in (metadata(endpoints).get("annotations") or {})
    return not (is_deleting(endpoints) or is_lock or labels(endpoints).get(SKIP_MIRROR_LABEL) == "true")


def addresses_skipped(endpoints: Object) -> int:
    """How many addresses are too many to be mirrored."""
    counts = (
        len(subset.get("addresses") or []) + len(subset.get("notReadyAddresses") or [])
        for subset in _subsets(endpoints)
    )
    return sum(max(0, count - MOST_ADDRESSES) for count in counts)


def mirrors(endpoints: Object, held: Sequence[Object]) -> list[Object]:
    """The slices that say what the Endpoints say; those that have the right ports already keep their names."""
    names = {(slice_.get("addressType", IPV4), ports_in(slice_)): name(slice_) for slice_ in held}
    return [
        _slice(endpoints, group, list(found.values())[:MOST_ADDRESSES], names.get(group) or _name(endpoints, group))
        for group, found in _grouped(endpoints).items()
    ]


def _grouped(endpoints: Object) -> Mapping[Group, dict[tuple[str, ...], dict[str, Any]]]:
    grouped: dict[Group, dict[tuple[str, ...], dict[str, Any]]] = {}
    for subset in _subsets(endpoints):
        ports = tuple(
            sorted(
                Port(port.get("name", ""), port.get("protocol", "TCP"), port["port"], port.get("appProtocol", ""))
                for port in subset.get("ports") or []
            )
        )
        for address, is_ready in list(_addresses(subset))[:MOST_ADDRESSES]:
            identity = (address["ip"], address.get("hostname", ""), (address.get("targetRef") or {}).get("uid", ""))
            family = IPV6 if ":" in address["ip"] else IPV4
            grouped.setdefault((family, ports), {})[identity] = _endpoint(address, is_ready=is_ready)
    return grouped


def _addresses(subset: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], bool]]:
    for part, is_ready in (("addresses", True), ("notReadyAddresses", False)):
        for address in subset.get(part) or []:
            yield address, is_ready


def _endpoint(address: Mapping[str, Any], *, is_ready: bool) -> dict[str, Any]:
    told = {field: address[field] for field in ("hostname", "nodeName", "targetRef") if address.get(field)}
    return {"addresses": [address["ip"]], "conditions": {"ready": is_ready}, **told}


def _slice(endpoints: Object, group: Group, found: list[dict[str, Any]], slice_name: str) -> Object:
    family, ports = group
    notes = metadata(endpoints).get("annotations") or {}
    return {
        "apiVersion": ENDPOINT_SLICE.api_version,
        "kind": ENDPOINT_SLICE.kind,
        "metadata": {
            "name": slice_name,
            "namespace": namespace(endpoints),
            "labels": {**labels(endpoints), SERVICE_NAME_LABEL: name(endpoints), MANAGED_BY_LABEL: MANAGED_BY},
            "annotations": {key: value for key, value in notes.items() if key not in OWN_ANNOTATIONS},
            "ownerReferences": [owner_reference(endpoints)],
        },
        "addressType": family,
        "endpoints": found,
        "ports": [port.document() for port in ports],
    }


def _name(endpoints: Object, group: Group) -> str:
    """The same after a restart: a create whose answer was lost is met again, not repeated."""
    return f"{name(endpoints)}-{hashlib.sha256(f'{uid(endpoints)} {group}'.encode()).hexdigest()[:5]}"


def _subsets(endpoints: Object) -> list[dict[str, Any]]:
    return endpoints.get("subsets") or []


def _mirrored(slice_: Object) -> list[Key]:
    """Whose Endpoints a slice of ours mirrors."""
    told = labels(slice_)
    is_ours = told.get(MANAGED_BY_LABEL) == MANAGED_BY and told.get(SERVICE_NAME_LABEL)
    return [Key(namespace(slice_), told[SERVICE_NAME_LABEL])] if is_ours else []


def _said(slice_: Object) -> tuple[object, ...]:
    notes = metadata(slice_).get("annotations") or {}
    return labels(slice_), notes, slice_.get("endpoints") or [], slice_.get("ports") or []
