"""Namespaces, Nodes, ConfigMaps, Leases and Events: shape, defaults and validation."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.api.objects import Object, name, namespace, spec
from testbed.api.wellknown import NAMESPACE_NAME_LABEL
from testbed.apiserver.admission import names
from testbed.apiserver.admission.networks import ip_address
from testbed.apiserver.admission.shapes import (
    CONDITION,
    OBJECT_REFERENCE,
    boolean,
    integer,
    kind_shape,
    list_of,
    map_of,
    quantity,
    struct,
    text,
    time,
)
from testbed.apiserver.refusals import Cause, forbidden_field, invalid, required, too_long, unsupported

CONFIG_LIMIT = 1 << 20
"""Bytes of a ConfigMap's values together."""
TAINT_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")
NAMESPACE_FINALIZER = "kubernetes"

_TAINT = struct(key=text, value=text, effect=text, timeAdded=time)
NAMESPACE_SHAPE = kind_shape(
    spec=struct(finalizers=list_of(text)), status=struct(phase=text, conditions=list_of(CONDITION))
)
NODE_SHAPE = kind_shape(
    spec=struct(podCIDR=text, podCIDRs=list_of(text), providerID=text, unschedulable=boolean, taints=list_of(_TAINT)),
    status=struct(
        addresses=list_of(struct(type=text, address=text)),
        conditions=list_of(CONDITION),
        capacity=map_of(quantity),
        allocatable=map_of(quantity),
        daemonEndpoints=struct(kubeletEndpoint=struct(Port=integer, Address=text)),
        nodeInfo=map_of(text),
    ),
)
CONFIG_MAP_SHAPE = kind_shape(data=map_of(text), binaryData=map_of(text), immutable=boolean)
LEASE_SHAPE = kind_shape(
    spec=struct(
        holderIdentity=text, leaseDurationSeconds=integer, leaseTransitions=integer, acquireTime=time, renewTime=time
    )
)
EVENT_SHAPE = kind_shape(
    involvedObject=OBJECT_REFERENCE,
    related=OBJECT_REFERENCE,
    reason=text,
    message=text,
    type=text,
    action=text,
    count=integer,
    source=struct(component=text, host=text),
    series=struct(count=integer, lastObservedTime=time),
    firstTimestamp=time,
    lastTimestamp=time,
    eventTime=time,
    reportingComponent=text,
    reportingInstance=text,
)


def default_namespace(obj: Object) -> None:
    """Active, labelled with its own name, and held until it is empty."""
    obj["metadata"].setdefault("labels", {})[NAMESPACE_NAME_LABEL] = name(obj)
    finalizers = obj.setdefault("spec", {}).setdefault("finalizers", [])
    if NAMESPACE_FINALIZER not in finalizers:
        finalizers.append(NAMESPACE_FINALIZER)
    obj.setdefault("status", {}).setdefault("phase", "Active")


def default_node(node: Object) -> None:
    """podCIDR and podCIDRs say the same."""
    fields = node.setdefault("spec", {})
    node.setdefault("status", {})
    if fields.get("podCIDR"):
        fields.setdefault("podCIDRs", [fields["podCIDR"]])
    elif fields.get("podCIDRs"):
        fields["podCIDR"] = fields["podCIDRs"][0]


def default_event(event: Object) -> None:
    """Normal, of nobody in particular."""
    event.setdefault("type", "Normal")
    event.setdefault("source", {})
    event.setdefault("reportingComponent", event["source"].get("component", ""))
    event.setdefault("reportingInstance", event["source"].get("host", ""))


def no_defaults(_obj: Object) -> None:
    """Nothing to fill in."""


def validate_node(node: Object) -> Iterator[Cause]:
    """Taints are complete, addresses are addresses."""
    for index, taint in enumerate(spec(node).get("taints", [])):
        yield from names.qualified_name(taint.get("key", ""), f"spec.taints[{index}].key")
        if taint.get("effect") not in TAINT_EFFECTS:
            yield unsupported(f"spec.taints[{index}].effect", taint.get("effect", ""), TAINT_EFFECTS)
    for index, address in enumerate(node["status"].get("addresses", [])):
        if address.get("type") == "InternalIP":
            yield from ip_address(address.get("address", ""), f"status.addresses[{index}].address")


def validate_node_update(node: Object, old: Object) -> Iterator[Cause]:
    """The pod network of a node is given once."""
    yield from validate_node(node)
    if spec(old).get("podCIDR") and spec(node).get("podCIDR") != spec(old)["podCIDR"]:
        yield forbidden_field("spec", 'node updates may not change podCIDR except from "" to valid')


def validate_config_map(config: Object) -> Iterator[Cause]:
    """Keys are file names; the whole is at most 1 MiB."""
    total = 0
    for part in ("data", "binaryData"):
        for entry, value in config.get(part, {}).items():
            total += len(value.encode())
            yield from names.checked(names.CONFIG_KEY, entry, f"{part}[{entry}]")
            if entry in {".", ".."}:
                yield invalid(f"{part}[{entry}]", entry, f"must not be {entry!r}")
    for entry in config.get("data", {}).keys() & config.get("binaryData", {}).keys():
        yield invalid(f"data[{entry}]", entry, "duplicate of key present in binaryData")
    if total > CONFIG_LIMIT:
        yield too_long("", CONFIG_LIMIT)


def validate_config_map_update(config: Object, old: Object) -> Iterator[Cause]:
    """An immutable ConfigMap stays what it is."""
    yield from validate_config_map(config)
    if not old.get("immutable"):
        return
    for field in ("immutable", "data", "binaryData"):
        if config.get(field) != old.get(field):
            yield forbidden_field(field, "field is immutable when `immutable` is set")


def validate_lease(lease: Object) -> Iterator[Cause]:
    """Durations are positive."""
    fields = spec(lease)
    if fields.get("leaseDurationSeconds", 1) <= 0:
        yield invalid("spec.leaseDurationSeconds", fields["leaseDurationSeconds"], "must be greater than 0")
    if fields.get("leaseTransitions", 0) < 0:
        yield invalid("spec.leaseTransitions", fields["leaseTransitions"], "must be greater than or equal to 0")


def validate_event(event: Object) -> Iterator[Cause]:
    """An event stands in the namespace of what it tells about; cluster-scoped things are told about in default."""
    involved = event.get("involvedObject")
    if involved is None:
        yield required("involvedObject")
        return
    homes = {involved["namespace"]} if involved.get("namespace") else {"default", "kube-system"}
    if namespace(event) not in homes:
        yield invalid("involvedObject.namespace", involved.get("namespace", ""), "does not match event.namespace")


def valid(_obj: Object) -> Iterator[Cause]:
    """Nothing to object to."""
    return iter(())
