"""What holds for each kind: one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from testbed.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    EVENT,
    LEASE,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    SERVICE,
    Kind,
)
from testbed.api.objects import Object
from testbed.apiserver.admission import (
    cluster,
    endpoints,
    pod_defaults,
    pod_shape,
    pod_validation,
    service_validation,
    services,
    workloads,
)
from testbed.apiserver.admission.names import DNS_1035_LABEL, DNS_LABEL, DNS_SUBDOMAIN, Syntax
from testbed.apiserver.admission.shapes import Shape
from testbed.apiserver.refusals import Cause


def _nothing(*_: Object) -> None:
    """Neither to fill in, nor to keep."""


@dataclass(frozen=True)
class Rules:
    """The rules of one kind. `validate` and `validate_update` see objects that `default` has completed."""

    shape: Shape
    default: Callable[[Object], None]
    validate: Callable[[Object], Iterator[Cause]]
    validate_update: Callable[[Object, Object], Iterator[Cause]] | None = None
    """New and old; None: as `validate`."""
    settle: Callable[[Object, Object], None] = _nothing
    """New and old: what the new version keeps where it says nothing."""
    default_status: Callable[[Object], None] = _nothing
    validate_status: Callable[[Object], Iterator[Cause]] = cluster.valid
    """Of a status that is written apart, within the whole object."""
    name: Syntax = DNS_SUBDOMAIN
    has_generation: bool = False
    keeps_first_status: bool = False
    """Whether a status given at creation is stored: a node registers itself, status and all."""
    keeps_spec: bool = False
    """Whether the spec is the server's own, which no update changes: a namespace's finalizers."""
    fields: tuple[str, ...] = ()
    """What field selectors may ask for, beside metadata.name and metadata.namespace."""

    def update_mistakes(self, obj: Object, old: Object) -> Iterator[Cause]:
        """Mistakes of a new version."""
        return self.validate_update(obj, old) if self.validate_update else self.validate(obj)


POD_FIELDS = (
    "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
    "status.phase", "status.podIP",
)  # fmt: skip
EVENT_FIELDS = (
    "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
    "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
    "reportingComponent", "type",
)  # fmt: skip

RULES: dict[Kind, Rules] = {
    NAMESPACE: Rules(
        cluster.NAMESPACE_SHAPE,
        cluster.default_namespace,
        cluster.valid,
        name=DNS_LABEL,
        keeps_spec=True,
        fields=("status.phase",),
    ),
    NODE: Rules(
        cluster.NODE_SHAPE,
        cluster.default_node,
        cluster.validate_node,
        cluster.validate_node_update,
        keeps_first_status=True,
        fields=("spec.unschedulable",),
    ),
    POD: Rules(
        pod_shape.POD_SHAPE,
        pod_defaults.default_pod,
        pod_validation.validate_pod,
        pod_validation.validate_pod_update,
        has_generation=True,
        fields=POD_FIELDS,
    ),
    SERVICE: Rules(
        services.SERVICE_SHAPE,
        services.default_service,
        service_validation.validate_service,
        service_validation.validate_service_update,
        services.settle_service,
        services.default_service_status,
        service_validation.validate_service_status,
        name=DNS_1035_LABEL,
        fields=("spec.clusterIP", "spec.type"),
    ),
    ENDPOINTS: Rules(endpoints.ENDPOINTS_SHAPE, endpoints.default_endpoints, endpoints.validate_endpoints),
    CONFIG_MAP: Rules(
        cluster.CONFIG_MAP_SHAPE, cluster.no_defaults, cluster.validate_config_map, cluster.validate_config_map_update
    ),
    EVENT: Rules(cluster.EVENT_SHAPE, cluster.default_event, cluster.validate_event, fields=EVENT_FIELDS),
    LEASE: Rules(cluster.LEASE_SHAPE, cluster.no_defaults, cluster.validate_lease),
    ENDPOINT_SLICE: Rules(
        endpoints.ENDPOINT_SLICE_SHAPE,
        endpoints.default_endpoint_slice,
        endpoints.validate_endpoint_slice,
        endpoints.validate_endpoint_slice_update,
        has_generation=True,
    ),
    DEPLOYMENT: Rules(
        workloads.DEPLOYMENT_SHAPE,
        workloads.default_deployment,
        workloads.validate_workload,
        workloads.validate_workload_update,
        has_generation=True,
    ),
    REPLICA_SET: Rules(
        workloads.REPLICA_SET_SHAPE,
        workloads.default_replica_set,
        workloads.validate_workload,
        workloads.validate_workload_update,
        has_generation=True,
        fields=("status.replicas",),
    ),
}
