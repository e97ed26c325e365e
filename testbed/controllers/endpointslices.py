"""EndpointSlices: who answers for a Service, by its selector and the readiness of the pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.api.kinds import ENDPOINT_SLICE
from testbed.api.objects import (
    Key,
    Object,
    is_deleting,
    is_ready,
    key,
    labels,
    metadata,
    name,
    namespace,
    now_micro,
    spec,
    status,
    uid,
)
from testbed.api.selectors import match_labels
from testbed.api.wellknown import MANAGED_BY_LABEL, ZONE_LABEL
from testbed.controllers.cluster import Cluster, has_ended, node_of, selectable, selecting, service_selector
from testbed.controllers.endpoint import Ports, addresses_of, can_serve, endpoint_of, families_of, ports_of
from testbed.controllers.events import Recorder
from testbed.controllers.loop import Loop, together
from testbed.controllers.slicing import MANAGED_BY, Endpoints, Writes, hints_in, plan
from testbed.controllers.zones import cpus_by_zone, place_of, problem_of, wants_zones, zones_for

PACE_S = 0.01
"""One change is written at once; of a wave of them at most 100 versions a second, each of which every node reads."""


class EndpointSlices:
    """The controller."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._client = cluster, cluster.client
        self._triggered: dict[Key, str] = {}
        self._recorder = Recorder(cluster.client, "endpoint-slice-controller")
        self._cpus: Mapping[str, float] | None = None
        """Of each zone; None where they must be counted anew."""
        self._zoned = cluster.services.index(lambda service: [True] if wants_zones(service) else [])
        self._problems: dict[Key, str] = {}
        """Why such a Service has no hints, as its last Event says; empty: it has them."""
        self.loop = Loop("endpointslice", self.reconcile, workers=16, pace_s=PACE_S)
        cluster.services.on_change(self._trigger)
        cluster.pods.observe(self._pod_changed)
        cluster.nodes.observe(self._node_changed)
        cluster.slices.observe(self._slice_changed)

    async def reconcile(self, which: Key) -> None:
        """Have the slices say what the pods are. They go with their Service by garbage collection."""
        trigger_time = self._triggered.pop(which, "") or now_micro()
        service = self._cluster.services.items.get(which)
        if service is None or is_deleting(service) or not service_selector(service):
            self._problems.pop(which, None)
            return
        held = [
            slice_
            for slice_ in self._cluster.dependents[ENDPOINT_SLICE][uid(service)]
            if labels(slice_).get(MANAGED_BY_LABEL) == MANAGED_BY and not is_deleting(slice_)
        ]
        for family in families_of(service):
            of_family = [slice_ for slice_ in held if slice_.get("addressType") == family]
            wanted = self._wanted(service, family)
            if wants_zones(service):
                await self._tell(service, family, self._hint(wanted, of_family))
            else:
                self._problems.pop(which, None)
            await self._write(plan(service, family, wanted, of_family, trigger_time))

    def _wanted(self, service: Object, family: str) -> dict[Ports, Endpoints]:
        wanted: dict[Ports, Endpoints] = {}
        for pod in selected_pods(self._cluster, service):
            if addresses_of(pod, family):
                zone = self._zone(node_of(pod))
                wanted.setdefault(ports_of(service, pod), {})[uid(pod)] = endpoint_of(service, pod, family, zone)
        return wanted

    def _hint(self, wanted: Mapping[Ports, Endpoints], held: Sequence[Object]) -> str:
        """Mean every endpoint for a zone, or none and the reason."""
        endpoints = {which: endpoint for group in wanted.values() for which, endpoint in group.items()}
        for endpoint in endpoints.values():
            endpoint.pop("hints", None)
        own = {which: each.get("zone", "") for which, each in endpoints.items() if each["conditions"]["ready"]}
        if self._cpus is None:
            self._cpus = cpus_by_zone(self._cluster.nodes.items.values())
        if problem := problem_of(own, self._cpus):
            return problem
        for which, zone in zones_for(own, hints_in(held), self._cpus).items():
            endpoints[which]["hints"] = {"forZones": [{"name": zone}]}
        return ""

    async def _tell(self, service: Object, family: str, problem: str) -> None:
        if self._problems.get(key(service)) == problem:
            return
        self._problems[key(service)] = problem
        if problem:
            text = f"{problem}, addressType: {family}"
            await self._recorder.warning(service, "TopologyAwareHintsDisabled", text)
        else:
            text = f"Topology Aware Hints has been enabled, addressType: {family}"
            await self._recorder.normal(service, "TopologyAwareHintsEnabled", text)

    def _zone(self, node: str) -> str:
        return labels(self._cluster.nodes.items.get(Key("", node), {})).get(ZONE_LABEL, "")

    async def _write(self, writes: Writes) -> None:
        await together(
            *(self._create(slice_) for slice_ in writes.create),
            *(self._update(slice_) for slice_ in writes.update),
        )
        await together(*(self._delete(slice_) for slice_ in writes.delete))

    async def _create(self, slice_: Object) -> None:
        self._cluster.slices.learn(await self._client.create(slice_))

    async def _update(self, slice_: Object) -> None:
        self._cluster.slices.learn(await self._client.update(slice_))

    async def _delete(self, slice_: Object) -> None:
        await self._client.delete(ENDPOINT_SLICE, name(slice_), namespace(slice_), uid=uid(slice_))

    def _trigger(self, service: Key) -> None:
        self._triggered.setdefault(service, now_micro())
        self.loop.enqueue(service)

    def _pod_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        if old is None or new is None or fingerprint(old) != fingerprint(new):
            for service in services_of(self._cluster, old, new):
                self._trigger(service)

    def _node_changed(self, which: Key, old: Object | None, new: Object | None) -> None:
        if place_of(old or {}) != place_of(new or {}):
            self._cpus = None
            for zoned in self._zoned[True]:
                self._trigger(key(zoned))
        if labels(old or {}).get(ZONE_LABEL) != labels(new or {}).get(ZONE_LABEL):
            for pod in self._cluster.pods_by_node[which.name]:
                for service in services_of(self._cluster, pod):
                    self._trigger(service)

    def _slice_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        """Somebody else's hand on a slice of ours is set right."""
        for slice_ in (old, new):
            for owner in metadata(slice_ or {}).get("ownerReferences") or []:
                self.loop.enqueue(Key(namespace(slice_ or {}), owner["name"]))


def selected_pods(cluster: Cluster, service: Object) -> list[Object]:
    """The pods that are endpoints of the Service, ready or not, by name."""
    selector = service_selector(service)
    selects = match_labels(selector)
    pods = selectable(cluster.pods_by_label, namespace(service), selector)
    return sorted((pod for pod in pods if selects(pod) and can_serve(pod)), key=name)


def services_of(cluster: Cluster, *pods: Object | None) -> set[Key]:
    """The Services that select any of the pods."""
    return {
        key(service)
        for service in selecting(cluster.services_by_selector, *pods)
        if any(pod is not None and match_labels(spec(service)["selector"])(pod) for pod in pods)
    }


def fingerprint(pod: Object) -> tuple[object, ...]:
    """Everything of a pod that an endpoint shows."""
    return (
        labels(pod), is_ready(pod), is_deleting(pod), has_ended(pod),
        node_of(pod), status(pod).get("podIP"), status(pod).get("podIPs"),
    )  # fmt: skip
