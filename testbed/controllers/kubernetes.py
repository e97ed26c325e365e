"""`default/kubernetes` stays: whoever deletes or bends it, or its endpoints, gets it back.

kube-apiserver does the same for itself (`pkg/controlplane/controller/kubernetesservice`). The control plane makes the
objects at its start, before anybody else may ask for the address.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from typing import Any

from testbed.api.kinds import ENDPOINT_SLICE, ENDPOINTS, SERVICE, Kind, kind_of
from testbed.api.objects import Key, Object, labels, spec
from testbed.api.wellknown import CLUSTER_CONFIG_MAP, SYSTEM_NAMESPACE
from testbed.controllers.cluster import Cluster
from testbed.controllers.loop import Loop
from testbed.errors import AlreadyExists
from testbed.topology.kubernetes import NAME, NAMESPACE, kubernetes_objects
from testbed.topology.spec import ClusterSpec

CONFIG = Key(SYSTEM_NAMESPACE, CLUSTER_CONFIG_MAP)
WHICH = Key(NAMESPACE, NAME)
KINDS = (SERVICE, ENDPOINTS, ENDPOINT_SLICE)


class KubernetesService:
    """The controller."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._client = cluster, cluster.client
        self.loop: Loop[Kind] = Loop("kubernetes", self.reconcile)
        for kind in KINDS:
            cluster.informers[kind].on_change(partial(self._object_changed, kind))
        cluster.config_maps.on_change(self._settings_changed)

    async def reconcile(self, kind: Kind) -> None:
        """Have the object of this kind, as the cluster's spec says."""
        settings = self._cluster.config_maps.items.get(CONFIG) or {}
        if not (text := (settings.get("data") or {}).get("spec.json")):
            return
        objects = {kind_of(obj): obj for obj in kubernetes_objects(ClusterSpec.from_json(json.loads(text)))}
        wanted, held = objects[kind], self._cluster.informers[kind].items.get(WHICH)
        if held is None:
            with suppress(AlreadyExists):
                self._cluster.informers[kind].learn(await self._client.create(wanted))
        elif patch := _corrections(held, wanted):
            await self._client.patch(kind, NAME, patch, NAMESPACE)

    def _object_changed(self, kind: Kind, which: Key) -> None:
        if which == WHICH:
            self.loop.enqueue(kind)

    def _settings_changed(self, which: Key) -> None:
        if which == CONFIG:
            for kind in KINDS:
                self.loop.enqueue(kind)


def _corrections(held: Object, wanted: Object) -> dict[str, Any]:
    """A patch that sets right what the cluster depends on: ports, addresses, and the labels by which they are found."""
    fields = [field for field in ("subsets", "endpoints", "ports") if held.get(field) != wanted.get(field)]
    patch = {field: wanted[field] for field in fields}
    if missing := {label: value for label, value in labels(wanted).items() if labels(held).get(label) != value}:
        patch["metadata"] = {"labels": missing}
    if spec(held).get("ports") != spec(wanted).get("ports"):
        patch["spec"] = {"ports": spec(wanted)["ports"]}
    return patch
