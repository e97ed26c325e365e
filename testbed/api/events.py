"""Events: what `kubectl describe` and `kubectl get events` tell about an object."""

from __future__ import annotations

from testbed.api.kinds import EVENT
from testbed.api.objects import Object, metadata, name, namespace, now


def event(kind: str, about: Object, reason: str, message: str, component: str, number: int) -> Object:
    """An Event of type Normal or Warning in the name of a component; `number` makes its name unique."""
    moment = now()
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": f"{name(about)}.{number:x}", "namespace": namespace(about) or "default"},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "namespace": namespace(about),
            "name": name(about),
            "uid": metadata(about).get("uid", ""),
            "resourceVersion": metadata(about).get("resourceVersion", ""),
        },
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "reportingComponent": component,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
