"""Endpoints: the older, flat form of a Service's EndpointSlices, for those who still read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from testbed.api.kinds import ENDPOINTS
from testbed.api.objects import (
    Key,
    Object,
    is_deleting,
    is_ready,
    labels,
    metadata,
    name,
    namespace,
    owner_reference,
    spec,
)
from testbed.api.wellknown import HEADLESS_LABEL
from testbed.controllers.cluster import Cluster, node_of, service_selector
from testbed.controllers.endpoint import Ports, addresses_of, families_of, hostname_in, ports_of, target_of
from testbed.controllers.endpointslices import fingerprint, selected_pods, services_of
from testbed.controllers.loop import Loop

PACE_S = 0.25
"""Whoever is in a hurry reads EndpointSlices: rewriting all addresses for each pod of a wave helps nobody."""
MOST_ADDRESSES = 1000
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MANAGED_BY_LABEL, MANAGED_BY = "endpoints.kubernetes.io/managed-by", "endpoint-controller"


class EndpointsObjects:
    """The controller."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._client = cluster, cluster.client
        self.loop = Loop("endpoints", self.reconcile, pace_s=PACE_S)
        cluster.services.on_change(self.loop.enqueue)
        cluster.endpoints.on_change(self.loop.enqueue)
        cluster.pods.observe(self._pod_changed)

    async def reconcile(self, which: Key) -> None:
        """Have the Endpoints of the Service say what its pods are."""
        service = self._cluster.services.items.get(which)
        if service is None or is_deleting(service) or not service_selector(service):
            return
        held = self._cluster.endpoints.items.get(which)
        wanted = endpoints_of(service, selected_pods(self._cluster, service))
        wanted["metadata"]["annotations"] |= _notes_of_others(held or {})
        if held is None:
            self._cluster.endpoints.learn(await self._client.create(wanted))
        elif any(_said(held, field) != _said(wanted, field) for field in ("labels", "annotations", "subsets")):
            wanted["metadata"]["resourceVersion"] = metadata(held)["resourceVersion"]
            self._cluster.endpoints.learn(await self._client.update(wanted))

    def _pod_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        if old is None or new is None or fingerprint(old) != fingerprint(new):
            for service in services_of(self._cluster, old, new):
                self.loop.enqueue(service)


def endpoints_of(service: Object, pods: Sequence[Object]) -> Object:
    """The Endpoints of a Service: per set of ports the ready addresses and the others. Pods that are being deleted are
    no endpoints here; past 1000 addresses the ready ones are kept first, and an annotation says so."""
    told = [pod for pod in pods if _publishes_unready(service) or not is_deleting(pod)]
    told = sorted(told, key=lambda pod: not _counts_as_ready(service, pod))
    headless = {HEADLESS_LABEL: ""} if spec(service).get("clusterIP") == "None" else {}
    return {
        "apiVersion": ENDPOINTS.api_version,
        "kind": ENDPOINTS.kind,
        "metadata": {
            "name": name(service),
            "namespace": namespace(service),
            "labels": {**labels(service), **headless, MANAGED_BY_LABEL: MANAGED_BY},
            "annotations": {OVER_CAPACITY: "truncated"} if len(told) > MOST_ADDRESSES else {},
            "ownerReferences": [owner_reference(service)],
        },
        "subsets": _subsets(service, told[:MOST_ADDRESSES]),
    }


def _subsets(service: Object, pods: Iterable[Object]) -> list[dict[str, Any]]:
    family = families_of(service)[0]
    subsets: dict[Ports, dict[str, Any]] = {}
    for pod in pods:
        ports = ports_of(service, pod)
        side = "addresses" if _counts_as_ready(service, pod) else "notReadyAddresses"
        for address in addresses_of(pod, family)[:1]:
            subsets.setdefault(ports, {}).setdefault(side, []).append(_address(service, pod, address))
    return [{**subset, "ports": [port.document() for port in ports]} for ports, subset in sorted(subsets.items())]


def _address(service: Object, pod: Object, address: str) -> dict[str, Any]:
    hostname = hostname_in(service, pod)
    told = {"ip": address, "nodeName": node_of(pod), "targetRef": target_of(pod)}
    return told | ({"hostname": hostname} if hostname else {})


def _publishes_unready(service: Object) -> bool:
    return bool(spec(service).get("publishNotReadyAddresses"))


def _counts_as_ready(service: Object, pod: Object) -> bool:
    return _publishes_unready(service) or is_ready(pod)


def _notes_of_others(endpoints: Object) -> dict[str, str]:
    notes = metadata(endpoints).get("annotations") or {}
    return {key: value for key, value in notes.items() if key != OVER_CAPACITY}


def _said(endpoints: Object, field: str) -> Any:
    return (endpoints if field == "subsets" else metadata(endpoints)).get(field) or None
