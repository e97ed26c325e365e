"""Deployments: one ReplicaSet per pod template, and the way from the old ones to the new one (`rollout`)."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from testbed.api.kinds import DEPLOYMENT, POD, REPLICA_SET
from testbed.api.objects import (
    Key,
    Object,
    annotated_number,
    annotations,
    condition,
    controller_of,
    is_deleting,
    key,
    metadata,
    name,
    namespace,
    now,
    owner_reference,
    spec,
    status,
    uid,
)
from testbed.api.selectors import structured_selector
from testbed.api.wellknown import POD_TEMPLATE_HASH_LABEL, REVISION_ANNOTATION, SAFE_ALPHABET
from testbed.controllers.cluster import Cluster, has_ended, match_labels, selectable, selecting
from testbed.controllers.events import Recorder
from testbed.controllers.loop import Loop, together
from testbed.controllers.ownership import claim
from testbed.controllers.rollout import Scale, next_scales, strategy_of

PACE_S = 0.02


class Deployments:
    """The controller."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._client = cluster, cluster.client
        self._events = Recorder(cluster.client, "deployment-controller")
        self.loop = Loop("deployment", self.reconcile, pace_s=PACE_S)
        cluster.deployments.on_change(self.loop.enqueue)
        cluster.replica_sets.observe(self._replica_set_changed)
        cluster.pods.observe(self._pod_changed)

    async def reconcile(self, which: Key) -> None:
        """Have the ReplicaSet of the template, scale all of them one step further, say in the status how far it is."""
        deployment = self._cluster.deployments.items.get(which)
        if deployment is None or is_deleting(deployment):
            return
        claimed = await self._replica_sets(deployment)
        wanted_name = f"{name(deployment)}-{template_hash(deployment)}"
        old = sorted((rs for rs in claimed if name(rs) != wanted_name), key=_revision)
        new = next((rs for rs in claimed if name(rs) == wanted_name), None)
        scales = self._next_scales(deployment, wanted_name, new, old)
        new = await self._ensure_new(deployment, new, old, scales[wanted_name])
        scaled = await together(*(self._scale(deployment, rs, scales[name(rs)]) for rs in (new, *old)))
        await self._remove_history(deployment, scaled[1:])
        await self._write_status(deployment, scaled[0], scaled)

    async def _replica_sets(self, deployment: Object) -> list[Object]:
        owned = self._cluster.dependents[REPLICA_SET][uid(deployment)]
        index = self._cluster.replica_sets_by_label
        like = selectable(index, namespace(deployment), match_labels(deployment))
        orphans = [replica_set for replica_set in like if not controller_of(replica_set)]
        return await claim(self._client, self._cluster.replica_sets, deployment, [*owned, *orphans])

    def _next_scales(
        self, deployment: Object, wanted_name: str, new: Object | None, old: Sequence[Object]
    ) -> dict[str, int]:
        return next_scales(
            spec(deployment).get("replicas", 1),
            strategy_of(spec(deployment)),
            _scale_of(new) if new is not None else Scale(wanted_name, 0, 0),
            [_scale_of(replica_set) for replica_set in old],
            old_pods_remain=not all(map(has_ended, self._pods_of(old))),
        )

    def _pods_of(self, replica_sets: Sequence[Object]) -> Iterable[Object]:
        return (pod for rs in replica_sets for pod in self._cluster.dependents[POD][uid(rs)])

    async def _ensure_new(self, deployment: Object, new: Object | None, old: Sequence[Object], replicas: int) -> Object:
        revision = max(map(_revision, old), default=0) + 1
        if new is None:
            new = await self._client.create(replica_set_of(deployment, replicas, revision))
            message = f"Scaled up replica set {name(new)} from 0 to {replicas}"
            await self._events.normal(deployment, "ScalingReplicaSet", message)
        elif _revision(new) < revision:  # an earlier template is the template again
            note = {"metadata": {"annotations": {REVISION_ANNOTATION: str(revision)}}}
            new = await self._client.patch(REPLICA_SET, name(new), note, namespace(new))
        self._cluster.replica_sets.learn(new)
        note = {"metadata": {"annotations": {REVISION_ANNOTATION: str(_revision(new))}}}
        if annotations(deployment).get(REVISION_ANNOTATION) != str(_revision(new)):
            written = await self._client.patch(DEPLOYMENT, name(deployment), note, namespace(deployment))
            self._cluster.deployments.learn(written)
        return new

    async def _scale(self, deployment: Object, replica_set: Object, replicas: int) -> Object:
        before = spec(replica_set).get("replicas", 1)
        if replicas == before:
            return replica_set
        patch = {"spec": {"replicas": replicas}}
        scaled = await self._client.patch(REPLICA_SET, name(replica_set), patch, namespace(replica_set))
        self._cluster.replica_sets.learn(scaled)
        way = "up" if replicas > before else "down"
        message = f"Scaled {way} replica set {name(replica_set)} from {before} to {replicas}"
        await self._events.normal(deployment, "ScalingReplicaSet", message)
        return scaled

    async def _remove_history(self, deployment: Object, old: Sequence[Object]) -> None:
        idle = [rs for rs in old if not spec(rs).get("replicas", 1) and not status(rs).get("replicas")]
        surplus = max(0, len(idle) - spec(deployment).get("revisionHistoryLimit", 10))
        deletions = (self._client.delete(REPLICA_SET, name(rs), namespace(rs), uid=uid(rs)) for rs in idle[:surplus])
        await together(*deletions)

    async def _write_status(self, deployment: Object, new: Object, replica_sets: Sequence[Object]) -> None:
        wanted = status_of(deployment, new, replica_sets)
        if all(status(deployment).get(field, 0) == value for field, value in wanted.items()):
            return
        patch = {"status": wanted}
        written = await self._client.patch(
            DEPLOYMENT, name(deployment), patch, namespace(deployment), subresource="status"
        )
        self._cluster.deployments.learn(written)

    def _replica_set_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        for replica_set in (old, new):
            controller = controller_of(replica_set or {})
            if replica_set is not None and controller.get("kind") == DEPLOYMENT.kind:
                self.loop.enqueue(Key(namespace(replica_set), controller["name"]))
        if new is not None and not controller_of(new):
            for deployment in selecting(self._cluster.deployments_by_selector, new):
                if structured_selector(spec(deployment).get("selector") or {})(new):
                    self.loop.enqueue(key(deployment))

    def _pod_changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        """The last old pod has gone: what Recreate waits for."""
        if old is None or new is not None:
            return
        owner = Key(namespace(old), controller_of(old).get("name", ""))
        if (replica_set := self._cluster.replica_sets.items.get(owner)) is not None:
            self._replica_set_changed(owner, None, replica_set)


def template_hash(deployment: Object) -> str:
    """Ten characters that name the pod template; the same template always has the same."""
    template = orjson.dumps(spec(deployment)["template"], option=orjson.OPT_SORT_KEYS)
    number = int.from_bytes(hashlib.sha256(template).digest()[:8])
    digits = []
    for _ in range(10):
        number, digit = divmod(number, len(SAFE_ALPHABET))
        digits.append(SAFE_ALPHABET[digit])
    return "".join(digits)


def replica_set_of(deployment: Object, replicas: int, revision: int) -> Object:
    """The ReplicaSet of the Deployment's template, which its selector tells from those of other templates."""
    template: dict[str, Any] = spec(deployment)["template"]
    own = {POD_TEMPLATE_HASH_LABEL: template_hash(deployment)}
    meta = template.get("metadata") or {}
    labels = {**(meta.get("labels") or {}), **own}
    selector: dict[str, Any] = spec(deployment).get("selector") or {}
    wait = {field: value for field, value in spec(deployment).items() if field == "minReadySeconds"}
    return {
        "apiVersion": REPLICA_SET.api_version,
        "kind": REPLICA_SET.kind,
        "metadata": {
            "name": f"{name(deployment)}-{own[POD_TEMPLATE_HASH_LABEL]}",
            "namespace": namespace(deployment),
            "labels": labels,
            "annotations": {REVISION_ANNOTATION: str(revision)},
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": {
            **wait,
            "replicas": replicas,
            "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), **own}},
            "template": {**template, "metadata": {**meta, "labels": labels}},
        },
    }


def status_of(deployment: Object, new: Object, replica_sets: Sequence[Object]) -> dict[str, Any]:
    """The Deployment's status: counts over its ReplicaSets, and the conditions Available and Progressing."""
    wanted = spec(deployment).get("replicas", 1)
    replicas, ready, available = (
        sum(status(rs).get(field, 0) for rs in replica_sets)
        for field in ("replicas", "readyReplicas", "availableReplicas")
    )
    updated = status(new).get("replicas", 0)
    is_enough = available >= wanted - strategy_of(spec(deployment)).unavailable
    is_done = updated == replicas == available == wanted
    return {
        "observedGeneration": metadata(deployment).get("generation", 0),
        "replicas": replicas,
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(spec(rs).get("replicas", 1) for rs in replica_sets) - available),
        "conditions": [
            _available(deployment, is_enough=is_enough),
            _progressing(deployment, name(new), is_done=is_done),
        ],
    }


def _available(deployment: Object, *, is_enough: bool) -> dict[str, str]:
    if is_enough:
        message = "Deployment has minimum availability."
        return _condition(deployment, "Available", "True", "MinimumReplicasAvailable", message)
    message = "Deployment does not have minimum availability."
    return _condition(deployment, "Available", "False", "MinimumReplicasUnavailable", message)


def _progressing(deployment: Object, new: str, *, is_done: bool) -> dict[str, str]:
    if is_done:
        message = f'ReplicaSet "{new}" has successfully progressed.'
        return _condition(deployment, "Progressing", "True", "NewReplicaSetAvailable", message)
    return _condition(deployment, "Progressing", "True", "ReplicaSetUpdated", f'ReplicaSet "{new}" is progressing.')


def _condition(deployment: Object, kind: str, value: str, reason: str, message: str) -> dict[str, str]:
    wanted = {"type": kind, "status": value, "reason": reason, "message": message}
    held = condition(deployment, kind)
    if wanted.items() <= held.items():
        return held
    moment = now()
    since = held.get("lastTransitionTime", moment) if held.get("status") == value else moment
    return {**wanted, "lastUpdateTime": moment, "lastTransitionTime": since}


def _scale_of(replica_set: Object) -> Scale:
    available = status(replica_set).get("availableReplicas", 0)
    return Scale(name(replica_set), spec(replica_set).get("replicas", 1), available)


def _revision(replica_set: Object) -> int:
    return annotated_number(replica_set, REVISION_ANNOTATION)
