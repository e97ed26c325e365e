"""ReplicaSets: as many pods as asked for, no more and no fewer."""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

from testbed.api.kinds import POD, REPLICA_SET
from testbed.api.objects import (
    Key,
    Object,
    annotated_number,
    condition,
    controller_of,
    is_deleting,
    is_ready,
    key,
    labels,
    metadata,
    name,
    namespace,
    now,
    owner_reference,
    parse_time,
    spec,
    status,
    uid,
)
from testbed.api.selectors import structured_selector
from testbed.controllers.cluster import Cluster, has_ended, match_labels, node_of, selectable, selecting
from testbed.controllers.events import Recorder
from testbed.controllers.loop import Loop, together
from testbed.controllers.ownership import claim
from testbed.errors import ApiError, NotFound

BURST = 500
"""Pods created or deleted in one reconcile, as in Kubernetes; the next one goes on."""
PACE_S = 0.02
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


class ReplicaSets:
    """The controller. Pods that it creates or deletes are counted at once, however late the watch tells of them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._client = cluster, cluster.client
        self._events = Recorder(cluster.client, "replicaset-controller")
        self._deleted: dict[Key, set[str]] = {}
        self.loop = Loop("replicaset", self.reconcile, pace_s=PACE_S)
        cluster.replica_sets.on_change(self.loop.enqueue)
        cluster.pods.observe(self._pod_changed)

    async def reconcile(self, which: Key) -> None:
        """Make the number of pods right, then say in the status what there is."""
        replica_set = self._cluster.replica_sets.items.get(which)
        if replica_set is None:
            self._deleted.pop(which, None)
            return
        pods = await self._pods(replica_set)
        self._forget_deleted(which, pods)
        active = [pod for pod in pods if self._is_active(which, pod)]
        missing = 0 if is_deleting(replica_set) else spec(replica_set).get("replicas", 1) - len(active)
        if missing:
            await self._create(replica_set, min(missing, BURST))
            await self._delete(which, active, min(-missing, BURST))
            self.loop.enqueue(which)
            active = [pod for pod in self._owned(replica_set) if self._is_active(which, pod)]
        await self._write_status(replica_set, active)

    async def _pods(self, replica_set: Object) -> list[Object]:
        like = selectable(self._cluster.pods_by_label, namespace(replica_set), match_labels(replica_set))
        orphans = [pod for pod in like if not controller_of(pod) and not has_ended(pod)]
        return await claim(self._client, self._cluster.pods, replica_set, [*self._owned(replica_set), *orphans])

    def _owned(self, replica_set: Object) -> Sequence[Object]:
        return self._cluster.dependents[POD][uid(replica_set)]

    def _is_active(self, which: Key, pod: Object) -> bool:
        return not has_ended(pod) and not is_deleting(pod) and uid(pod) not in self._deleted.get(which, ())

    def _forget_deleted(self, which: Key, pods: Sequence[Object]) -> None:
        left = self._deleted.pop(which, set()) & {uid(pod) for pod in pods}
        if left:
            self._deleted[which] = left

    async def _create(self, replica_set: Object, count: int) -> None:
        try:
            await together(*(self._create_one(replica_set) for _ in range(count)))
        except ApiError as error:
            await self._events.warning(replica_set, "FailedCreate", f"Error creating: {error}")
            raise

    async def _create_one(self, replica_set: Object) -> None:
        self._cluster.pods.learn(await self._client.create(pod_of(replica_set)))

    async def _delete(self, which: Key, active: Sequence[Object], count: int) -> None:
        if count > 0:
            await together(*(self._delete_one(which, pod) for pod in least_wanted(active)[:count]))

    async def _delete_one(self, which: Key, pod: Object) -> None:
        deleted = self._deleted.setdefault(which, set())
        deleted.add(uid(pod))
        try:
            await self._client.delete(POD, name(pod), namespace(pod), uid=uid(pod))
        except NotFound:
            return
        except ApiError:
            deleted.discard(uid(pod))
            raise

    async def _write_status(self, replica_set: Object, active: Sequence[Object]) -> None:
        wanted = status_of(replica_set, active)
        if any(status(replica_set).get(field, 0) != value for field, value in wanted.items()):
            written = await self._client.patch(
                REPLICA_SET, name(replica_set), {"status": wanted}, namespace(replica_set), subresource="status"
            )
            self._cluster.replica_sets.learn(written)
        if wanted["readyReplicas"] > wanted["availableReplicas"]:
            self.loop.enqueue_after(key(replica_set), 1.0)

    def _pod_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and _matters(old) == _matters(new):
            return
        for pod in (old, new):
            controller = controller_of(pod or {})
            if pod is not None and controller.get("kind") == REPLICA_SET.kind:
                self.loop.enqueue(Key(namespace(pod), controller["name"]))
        if new is not None and not controller_of(new):
            for replica_set in selecting(self._cluster.replica_sets_by_selector, new):
                if structured_selector(spec(replica_set).get("selector") or {})(new):
                    self.loop.enqueue(key(replica_set))


def pod_of(replica_set: Object) -> Object:
    """A pod to be, made from the template."""
    template: dict[str, Any] = spec(replica_set)["template"]
    meta = template.get("metadata") or {}
    return {
        "apiVersion": POD.api_version,
        "kind": POD.kind,
        "metadata": {
            "generateName": f"{name(replica_set)}-",
            "namespace": namespace(replica_set),
            "labels": dict(meta.get("labels") or {}),
            **({"annotations": dict(meta["annotations"])} if meta.get("annotations") else {}),
            "ownerReferences": [owner_reference(replica_set)],
        },
        "spec": copy.deepcopy(template["spec"]),
    }


def status_of(replica_set: Object, active: Sequence[Object]) -> dict[str, int]:
    """The counts of a ReplicaSet's status."""
    ready = [pod for pod in active if is_ready(pod)]
    available_since_s = parse_time(now()).timestamp() - spec(replica_set).get("minReadySeconds", 0)
    template_labels = (spec(replica_set)["template"].get("metadata") or {}).get("labels") or {}
    return {
        "replicas": len(active),
        "fullyLabeledReplicas": sum(template_labels.items() <= labels(pod).items() for pod in active),
        "readyReplicas": len(ready),
        "availableReplicas": sum(_ready_since_s(pod) <= available_since_s for pod in ready),
        "observedGeneration": metadata(replica_set).get("generation", 0),
    }


def least_wanted(pods: Sequence[Object]) -> list[Object]:
    """In the order in which they are given up: no node yet, not started, not ready, cheap by annotation, crowded on one
    node, ready for the shortest time, restarted often, young (Kubernetes' ActivePodsWithRanks)."""
    crowds = Counter(node_of(pod) for pod in pods)
    phases = {"Pending": 0, "Unknown": 1, "Running": 2}

    def rank(pod: Object) -> tuple[Any, ...]:
        return (
            bool(node_of(pod)),
            phases.get(status(pod).get("phase", "Pending"), 0),
            is_ready(pod),
            annotated_number(pod, DELETION_COST),
            -crowds[node_of(pod)],
            -_ready_since_s(pod),
            -max((c.get("restartCount", 0) for c in status(pod).get("containerStatuses") or []), default=0),
        )

    youngest_first = sorted(pods, key=lambda pod: (metadata(pod).get("creationTimestamp", ""), name(pod)), reverse=True)
    return sorted(youngest_first, key=rank)


def _ready_since_s(pod: Object) -> float:
    since = condition(pod, "Ready").get("lastTransitionTime")
    return parse_time(since).timestamp() if since and is_ready(pod) else 0.0


def _matters(pod: Object) -> tuple[Any, ...]:
    owners = metadata(pod).get("ownerReferences")
    return is_ready(pod), status(pod).get("phase"), is_deleting(pod), labels(pod), owners, node_of(pod)
