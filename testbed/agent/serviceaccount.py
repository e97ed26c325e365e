"""The service account of a pod: the files by which its programs reach the API as everybody's libraries expect.

    /var/run/secrets/kubernetes.io/serviceaccount/{token,ca.crt,namespace}

A pod has them where it names a serviceAccountName, unless it says automountServiceAccountToken: false. There is no RBAC
yet: the token is the cluster's own in every pod, whatever the account is called, and may do everything. So a pod that
names no account gets none, other than in Kubernetes, where it would get that of `default`.
Source: Kubernetes documentation, "Accessing the Kubernetes API from a Pod".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.agent.identity import Identity
from testbed.agent.sandbox import Mount
from testbed.api.objects import Object, namespace, spec
from testbed.api.wellknown import SERVICE_ACCOUNT_PATH

DIRECTORY = "serviceaccount"


def write_account(directory: Path, pod: Object, identity: Identity) -> None:
    """The files of the pod's account, below the pod's own directory; only root, as programs in pods are, reads them."""
    if not _has_account(pod):
        return
    (directory / DIRECTORY).mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {"token": identity.token, "ca.crt": identity.authority, "namespace": namespace(pod)}
    for name, content in files.items():
        file = directory / DIRECTORY / name
        file.touch(mode=0o600)
        file.write_text(content, encoding="ascii")


def account_mounts(directory: Path, pod: Object, container: Mapping[str, Any]) -> list[Mount]:
    """Where a container sees them; one that mounts something of its own there keeps that."""
    taken = {mount["mountPath"].rstrip("/") for mount in container.get("volumeMounts") or []}
    return (
        []
        if SERVICE_ACCOUNT_PATH in taken or not _has_account(pod)
        else [Mount(directory / DIRECTORY, SERVICE_ACCOUNT_PATH)]
    )


def _has_account(pod: Object) -> bool:
    return bool(spec(pod).get("serviceAccountName")) and spec(pod).get("automountServiceAccountToken") is not False
