"""What the server tells about itself: groups, versions and kinds (the legacy discovery documents), and its version."""

from __future__ import annotations

import platform
from typing import Any

from testbed.api.kinds import KINDS, NAMESPACE, Kind

KUBERNETES = ("1", "33")
"""The release whose behaviour is followed."""

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_SUBRESOURCE_VERBS = {
    "status": ["get", "patch", "update"],
    "scale": ["get", "patch", "update"],
    "log": ["get"],
    "exec": ["create", "get"],
    "binding": ["create"],
    "proxy": ["create", "delete", "get", "patch", "update"],
}
_SUBRESOURCE_KINDS = {
    "scale": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
    "exec": {"kind": "PodExecOptions"},
    "binding": {"kind": "Binding"},
}


def documents() -> dict[str, Any]:
    """Every discovery document by its path."""
    roots = sorted({(kind.group, kind.version) for kind in KINDS})
    groups = [_group(group, version) for group, version in roots if group]
    found: dict[str, Any] = {
        "/version": version(),
        "/api": {
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        },
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
    }
    found |= {f"/apis/{group['name']}": {"kind": "APIGroup", "apiVersion": "v1", **group} for group in groups}
    for kind in KINDS:
        found[kind.root] = _resource_list(kind)
    return found


def version() -> dict[str, str]:
    """What `kubectl version` shows."""
    major, minor = KUBERNETES
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{major}.{minor}.0+testbed",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }


def _group(group: str, version: str) -> dict[str, Any]:
    served = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [served], "preferredVersion": served}


def _resource_list(of: Kind) -> dict[str, Any]:
    kinds = [kind for kind in KINDS if kind.root == of.root]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": of.api_version,
        "resources": [entry for kind in kinds for entry in (_resource(kind), *_subresources(kind))],
    }


def _resource(kind: Kind) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": [verb for verb in _VERBS if kind != NAMESPACE or verb != "deletecollection"],
    }
    if kind.short_names:
        entry["shortNames"] = kind.short_names
    if kind.categories:
        entry["categories"] = kind.categories
    return entry


def _subresources(kind: Kind) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{kind.plural}/{subresource}",
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": _SUBRESOURCE_VERBS[subresource],
            **_SUBRESOURCE_KINDS.get(subresource, {}),
            **({"kind": f"{kind.kind}ProxyOptions"} if subresource == "proxy" else {}),
        }
        for subresource in kind.subresources
    ]
