"""Deployments and ReplicaSets: shape, defaults and validation (`pkg/apis/apps`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from testbed.api.objects import Object, labels, spec
from testbed.api.selectors import structured_selector
from testbed.apiserver.admission import names
from testbed.apiserver.admission.pod_defaults import default_pod_spec
from testbed.apiserver.admission.pod_shape import POD_TEMPLATE
from testbed.apiserver.admission.pod_validation import validate_pod_spec
from testbed.apiserver.admission.shapes import (
    CONDITION,
    LABEL_SELECTOR,
    boolean,
    integer,
    integer_or_text,
    kind_shape,
    list_of,
    struct,
    text,
)
from testbed.apiserver.refusals import Cause, immutable, invalid, required, unsupported

_COUNTS = (
    "observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas",
    "terminatingReplicas", "fullyLabeledReplicas", "collisionCount",
)  # fmt: skip
_STATUS = struct(conditions=list_of(CONDITION), **dict.fromkeys(_COUNTS, integer))
DEPLOYMENT_SHAPE = kind_shape(
    spec=struct(
        replicas=integer,
        selector=LABEL_SELECTOR,
        template=POD_TEMPLATE,
        strategy=struct(type=text, rollingUpdate=struct(maxSurge=integer_or_text, maxUnavailable=integer_or_text)),
        minReadySeconds=integer,
        revisionHistoryLimit=integer,
        progressDeadlineSeconds=integer,
        paused=boolean,
    ),
    status=_STATUS,
)
REPLICA_SET_SHAPE = kind_shape(
    spec=struct(replicas=integer, selector=LABEL_SELECTOR, template=POD_TEMPLATE, minReadySeconds=integer),
    status=_STATUS,
)


def default_deployment(deployment: Object) -> None:
    """One replica, rolling update by a quarter, the template as a pod."""
    fields = default_replicas(deployment)
    strategy = fields.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")
    fields.setdefault("revisionHistoryLimit", 10)
    fields.setdefault("progressDeadlineSeconds", 600)


def default_replica_set(replica_set: Object) -> None:
    """One replica, the template as a pod."""
    default_replicas(replica_set)


def default_replicas(workload: Object) -> dict[str, Any]:
    """What both have in common; the spec."""
    fields: dict[str, Any] = workload.setdefault("spec", {})
    workload.setdefault("status", {})
    fields.setdefault("replicas", 1)
    if "template" in fields:
        default_pod_spec(fields["template"].setdefault("spec", {}))
    return fields


def validate_workload(workload: Object) -> Iterator[Cause]:
    """Mistakes of a Deployment or ReplicaSet."""
    fields = spec(workload)
    for name in ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        if fields.get(name, 0) < 0:
            yield invalid(f"spec.{name}", fields[name], "must be greater than or equal to 0")
    deadline_s = fields.get("progressDeadlineSeconds")
    if deadline_s is not None and 0 <= deadline_s <= fields.get("minReadySeconds", 0):
        yield invalid("spec.progressDeadlineSeconds", deadline_s, "must be greater than minReadySeconds")
    if fields.get("strategy", {}).get("type", "Recreate") not in {"Recreate", "RollingUpdate"}:
        yield unsupported("spec.strategy.type", fields["strategy"]["type"], ("Recreate", "RollingUpdate"))
    yield from _rolling_update(fields.get("strategy", {}).get("rollingUpdate", {}))
    yield from _selector(fields)
    if "template" not in fields:
        yield required("spec.template")
        return
    template = fields["template"]
    yield from names.check_labels(labels(template), "spec.template.labels")
    yield from validate_pod_spec(template["spec"], "spec.template.spec")
    if template["spec"]["restartPolicy"] != "Always":
        yield unsupported("spec.template.spec.restartPolicy", template["spec"]["restartPolicy"], ("Always",))


def validate_workload_update(workload: Object, old: Object) -> Iterator[Cause]:
    """The selector stays: pods that it no longer matched would be orphans."""
    yield from validate_workload(workload)
    if spec(workload).get("selector") != spec(old).get("selector"):
        yield immutable("spec.selector", spec(workload).get("selector"))


def _rolling_update(rolling: Mapping[str, Any]) -> Iterator[Cause]:
    for name in ("maxSurge", "maxUnavailable"):
        value, field = rolling.get(name, 0), f"spec.strategy.rollingUpdate.{name}"
        if isinstance(value, str):
            yield from names.checked(names.PERCENT, value, field)
        elif value < 0:
            yield invalid(field, value, "must be greater than or equal to 0")
    if rolling and all(rolling.get(name) in (0, "0%") for name in ("maxSurge", "maxUnavailable")):
        yield invalid(
            "spec.strategy.rollingUpdate.maxUnavailable", rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0"
        )


def _selector(fields: Mapping[str, Any]) -> Iterator[Cause]:
    selector = fields.get("selector", {})
    if not selector:
        yield required("spec.selector")
        return
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield invalid("spec.selector", selector, "empty selector is invalid for deployment")
        return
    mistakes = list(names.label_selector(selector, "spec.selector"))
    yield from mistakes
    template = fields.get("template", {})
    if not mistakes and template and not structured_selector(selector)(template):
        yield invalid("spec.template.metadata.labels", labels(template), "`selector` does not match template `labels`")
