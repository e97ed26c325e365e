"""autoscaling/v1 Scale: a workload seen as nothing but a number of replicas."""

from __future__ import annotations

from testbed.api.kinds import Kind
from testbed.api.objects import Object, name, spec, status
from testbed.apiserver import refusals
from testbed.apiserver.admission.shapes import integer, kind_shape, struct, text
from testbed.apiserver.refusals import Cause
from testbed.errors import BadRequest

SCALE_SHAPE = kind_shape(spec=struct(replicas=integer), status=struct(replicas=integer, selector=text))
IDENTITY = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(workload: Object) -> Object:
    """The Scale of a Deployment or ReplicaSet; its selector in text, as autoscalers want it."""
    meta = workload["metadata"]
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: meta[field] for field in IDENTITY if field in meta},
        "spec": {"replicas": spec(workload).get("replicas", 0)},
        "status": {"replicas": status(workload).get("replicas", 0), "selector": _selector(workload)},
    }


def scaled(kind: Kind, workload: Object, scale: Object) -> Object:
    """The workload (which is changed) with the replicas of `scale`; Conflict where that was made from an old one."""
    causes: list[Cause] = []
    SCALE_SHAPE(scale, "", causes)
    if causes:
        raise BadRequest("the request's body is no Scale: " + "; ".join(map(str, causes)))
    version = (scale.get("metadata") or {}).get("resourceVersion")
    if version and version != workload["metadata"]["resourceVersion"]:
        raise refusals.conflict(kind, name(workload))
    workload["spec"]["replicas"] = scale.get("spec", {}).get("replicas", 0)
    return workload


def _selector(workload: Object) -> str:
    selector = spec(workload).get("selector", {})
    parts = [f"{label}={value}" for label, value in sorted(selector.get("matchLabels", {}).items())]
    for expression in selector.get("matchExpressions", []):
        label, operator, values = expression["key"], expression["operator"], ",".join(expression.get("values", []))
        parts.append(
            {
                "In": f"{label} in ({values})",
                "NotIn": f"{label} notin ({values})",
                "Exists": label,
                "DoesNotExist": f"!{label}",
            }[operator]
        )
    return ",".join(parts)
