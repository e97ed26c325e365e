"""The revisions of a Deployment: a ReplicaSet for each pod template that it has had. Pure.

A template that comes back, as after `kubectl rollout undo`, has its ReplicaSet again, with a new revision number. Two
templates are the same if Go would read the same from both: a client that has read one may leave out what is empty.
"""

import hashlib
from typing import Any

import orjson

from testbed.api.kinds import REPLICA_SET
from testbed.api.objects import Object, annotated_number, annotations, name, namespace, owner_reference, spec
from testbed.api.wellknown import POD_TEMPLATE_HASH_LABEL, REVISION_ANNOTATION, SAFE_ALPHABET

HISTORY_ANNOTATION = "deployment.kubernetes.io/revision-history"
"""Of a ReplicaSet: the revisions that it has been before, separated by commas."""
NOT_COPIED = (
    REVISION_ANNOTATION,
    HISTORY_ANNOTATION,
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
    "kubectl.kubernetes.io/last-applied-configuration",
)
"""Annotations of a Deployment that its ReplicaSets do not get (`kubectl rollout history` reads the others there)."""
_PLAIN_FLAGS = ("hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty", "readOnly")
"""Booleans whose absence means false; of the others, some mean true."""


def template_hash(deployment: Object) -> str:
    """Ten characters that name the pod template; the same template always has the same."""
    template = orjson.dumps(_pruned(spec(deployment)["template"]), option=orjson.OPT_SORT_KEYS)
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
    return {
        "apiVersion": REPLICA_SET.api_version,
        "kind": REPLICA_SET.kind,
        "metadata": {
            "name": f"{name(deployment)}-{own[POD_TEMPLATE_HASH_LABEL]}",
            "namespace": namespace(deployment),
            "labels": labels,
            "annotations": {**_copied(deployment), REVISION_ANNOTATION: str(revision)},
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": {
            "minReadySeconds": spec(deployment).get("minReadySeconds", 0),
            "replicas": replicas,
            "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), **own}},
            "template": {**template, "metadata": {**meta, "labels": labels}},
        },
    }


def change_of(deployment: Object, replica_set: Object, revision: int) -> dict[str, Any]:
    """The merge patch that makes an earlier ReplicaSet of the template the one of this revision; empty if it is."""
    before = revision_of(replica_set)
    notes = _copied(deployment)
    if before < revision:
        past = annotations(replica_set).get(HISTORY_ANNOTATION)
        notes |= {REVISION_ANNOTATION: str(revision)}
        notes |= {HISTORY_ANNOTATION: f"{past},{before}" if past else str(before)} if before else {}
    changes: dict[str, Any] = {}
    if not notes.items() <= annotations(replica_set).items():
        changes["metadata"] = {"annotations": notes}
    wait_s = spec(deployment).get("minReadySeconds", 0)
    if spec(replica_set).get("minReadySeconds", 0) != wait_s:
        changes["spec"] = {"minReadySeconds": wait_s}
    return changes


def revision_of(replica_set: Object) -> int:
    """Its number; 0 where it has none."""
    return annotated_number(replica_set, REVISION_ANNOTATION)


def _copied(deployment: Object) -> dict[str, str]:
    return {key: value for key, value in annotations(deployment).items() if key not in NOT_COPIED}


def _pruned(value: Any) -> Any:
    """The value without what is empty or absent by another word."""
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    if not isinstance(value, dict):
        return value
    pruned = {key: _pruned(item) for key, item in value.items()}
    return {key: item for key, item in pruned.items() if not _is_absent(key, item)}


def _is_absent(key: str, value: Any) -> bool:
    return value is None or value in ([], {}) or (key in _PLAIN_FLAGS and value is False)
