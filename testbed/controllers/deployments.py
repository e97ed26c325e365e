"""Deployments: one ReplicaSet per pod template (`revisions`), the way from the old ones to the new one (`rollout`), and
what is told of it (`progress`)."""

from collections.abc import Iterable, Mapping, Sequence

from testbed.api.kinds import DEPLOYMENT, POD, REPLICA_SET
from testbed.api.objects import (
    Key,
    Object,
    annotations,
    controller_of,
    is_deleting,
    key,
    name,
    namespace,
    spec,
    status,
    uid,
)
from testbed.api.selectors import structured_selector
from testbed.api.wellknown import REVISION_ANNOTATION
from testbed.controllers.cluster import Cluster, has_ended, match_labels, selectable, selecting
from testbed.controllers.events import Recorder
from testbed.controllers.loop import Loop, together
from testbed.controllers.ownership import claim
from testbed.controllers.progress import Rollout, deadline_left_s, status_of
from testbed.controllers.revisions import change_of, replica_set_of, revision_of, template_hash
from testbed.controllers.rollout import Scale, next_scales, paused_scales, strategy_of

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
        old = sorted((rs for rs in claimed if name(rs) != wanted_name), key=revision_of)
        new = next((rs for rs in claimed if name(rs) == wanted_name), None)
        if spec(deployment).get("paused"):
            rollout = await self._stay(deployment, new, old)
        else:
            rollout = await self._roll(deployment, wanted_name, new, old)
        await self._write_status(deployment, rollout)

    async def _roll(self, deployment: Object, wanted_name: str, new: Object | None, old: Sequence[Object]) -> Rollout:
        """One step from the old templates to the new one."""
        scales = self._next_scales(deployment, wanted_name, new, old)
        was_created = new is None
        new = await self._ensure_new(deployment, new, old, scales[wanted_name])
        scaled = await self._scale_all(deployment, (new, *old), scales)
        await self._remove_history(deployment, scaled[1:])
        return Rollout(scaled[0], scaled, was_created)

    async def _stay(self, deployment: Object, new: Object | None, old: Sequence[Object]) -> Rollout:
        """Paused: what there is is scaled, all in the same measure, and nothing is rolled."""
        there = (*old, *((new,) if new else ()))
        scales = paused_scales(
            spec(deployment).get("replicas", 1), strategy_of(spec(deployment)), [_scale_of(rs) for rs in there]
        )
        scaled = await self._scale_all(deployment, there, scales)
        await self._remove_history(deployment, scaled[: len(old)])
        return Rollout(scaled[-1] if new else None, scaled)

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
        revision = max(map(revision_of, old), default=0) + 1
        if new is None:
            new = await self._client.create(replica_set_of(deployment, replicas, revision))
            message = f"Scaled up replica set {name(new)} from 0 to {replicas}"
            await self._events.normal(deployment, "ScalingReplicaSet", message)
        elif change := change_of(deployment, new, revision):
            new = await self._client.patch(REPLICA_SET, name(new), change, namespace(new))
        self._cluster.replica_sets.learn(new)
        note = {"metadata": {"annotations": {REVISION_ANNOTATION: str(revision_of(new))}}}
        if annotations(deployment).get(REVISION_ANNOTATION) != str(revision_of(new)):
            written = await self._client.patch(DEPLOYMENT, name(deployment), note, namespace(deployment))
            self._cluster.deployments.learn(written)
        return new

    async def _scale_all(
        self, deployment: Object, replica_sets: Sequence[Object], scales: Mapping[str, int]
    ) -> list[Object]:
        return await together(*(self._scale(deployment, rs, scales[name(rs)]) for rs in replica_sets))

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

    async def _write_status(self, deployment: Object, rollout: Rollout) -> None:
        wanted = status_of(deployment, rollout)
        if any(status(deployment).get(field, 0) != value for field, value in wanted.items()):
            patch = {"status": wanted}
            deployment = await self._client.patch(
                DEPLOYMENT, name(deployment), patch, namespace(deployment), subresource="status"
            )
            self._cluster.deployments.learn(deployment)
        if (left_s := deadline_left_s(deployment)) is not None:
            self.loop.enqueue_after(key(deployment), left_s + 1)  # times are told in whole seconds

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


def _scale_of(replica_set: Object) -> Scale:
    available = status(replica_set).get("availableReplicas", 0)
    return Scale(name(replica_set), spec(replica_set).get("replicas", 1), available)
