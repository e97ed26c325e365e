"""What Kubernetes fills into a pod (`pkg/apis/core/v1/defaults.go`)."""

from __future__ import annotations

from typing import Any

from testbed.api.objects import Object

Fields = dict[str, Any]

_FILE_MODE = 0o644


def default_pod(pod: Object) -> None:
    """Fill in the pod's spec and, where it has none, its first status."""
    default_pod_spec(pod.setdefault("spec", {}))
    status = pod.setdefault("status", {})
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", qos_class(pod["spec"]))


def default_pod_spec(spec: Fields) -> None:
    """Fill in a pod's spec, or a template's."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("enableServiceLinks", True)
    for container in [*spec.get("containers", []), *spec.get("initContainers", [])]:
        _default_container(container, host_network=spec.get("hostNetwork", False))
    for volume in spec.get("volumes", []):
        _default_volume(volume)


def qos_class(spec: Fields) -> str:
    """BestEffort, Burstable or Guaranteed, by what the containers ask for (`pkg/apis/core/v1/helper/qos`)."""
    resources = [c.get("resources", {}) for c in [*spec.get("containers", []), *spec.get("initContainers", [])]]
    if not any(r.get("requests") or r.get("limits") for r in resources):
        return "BestEffort"
    for wanted in resources:
        limits, requests = wanted.get("limits", {}), wanted.get("requests", {})
        if not {"cpu", "memory"} <= limits.keys() or any(limits.get(name) != requests[name] for name in requests):
            return "Burstable"
    return "Guaranteed"


def _default_container(container: Fields, *, host_network: bool) -> None:
    container.setdefault("imagePullPolicy", _pull_policy(container.get("image", "")))
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    _default_resources(container.setdefault("resources", {}))
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
        if host_network and port.get("containerPort"):
            port.setdefault("hostPort", port["containerPort"])
    for variable in container.get("env", []):
        if reference := variable.get("valueFrom", {}).get("fieldRef"):
            reference.setdefault("apiVersion", "v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _default_probe(container[name])
    for hook in ("postStart", "preStop"):
        _default_http_get(container.get("lifecycle", {}).get(hook, {}))


def _default_resources(resources: Fields) -> None:
    if limits := resources.get("limits"):
        requests = resources.setdefault("requests", {})
        for name, quantity in limits.items():
            requests.setdefault(name, quantity)


def _default_probe(probe: Fields) -> None:
    probe.setdefault("timeoutSeconds", 1)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("successThreshold", 1)
    probe.setdefault("failureThreshold", 3)
    _default_http_get(probe)


def _default_http_get(handler: Fields) -> None:
    if "httpGet" in handler:
        handler["httpGet"].setdefault("path", "/")
        handler["httpGet"].setdefault("scheme", "HTTP")


def _default_volume(volume: Fields) -> None:
    sources = volume.keys() - {"name"}
    if not sources:
        volume["emptyDir"] = {}
    for source in sources & {"configMap", "secret", "downwardAPI", "projected"}:
        volume[source].setdefault("defaultMode", _FILE_MODE)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")


def _pull_policy(image: str) -> str:
    tag = image.rpartition("/")[2].partition(":")[2]
    is_moving = tag in ("", "latest") and "@" not in image
    return "Always" if is_moving else "IfNotPresent"
