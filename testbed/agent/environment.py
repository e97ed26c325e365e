"""The environment, command and arguments of a container, as its pod's manifest says them. Pure.

Source: Kubernetes API reference, core/v1 EnvVar, EnvFromSource, Container.command.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.api import objects
from testbed.api.objects import Object, name, namespace, spec, uid
from testbed.errors import NotFound

ConfigMapData = Callable[[str, str], Mapping[str, str]]
"""Namespace and name to the data of a ConfigMap. Raises NotFound."""

_REFERENCE = re.compile(r"\$(\$|\((?P<name>[^()]+)\))")
_SUBSCRIPT = re.compile(r"metadata\.(?P<map>labels|annotations)\['(?P<key>[^']+)'\]")


@dataclass(frozen=True)
class PodFacts:
    """What a pod's containers are told about where they run."""

    pod_ip: str
    host_ip: str
    service_host: str
    """The ClusterIP of the API server."""
    service_port: int = 443


def environment(
    pod: Object, container: Mapping[str, Any], facts: PodFacts, config_map: ConfigMapData
) -> dict[str, str]:
    """All variables of the container, references in their values resolved in the order of the list.

    NotFound, naming it, for a ConfigMap or key that is neither there nor optional.
    """
    variables = {"KUBERNETES_SERVICE_HOST": facts.service_host, "KUBERNETES_SERVICE_PORT": str(facts.service_port)}
    for source in container.get("envFrom") or []:
        variables |= _from_config_map(pod, source, config_map)
    for variable in container.get("env") or []:
        if "valueFrom" in variable:
            value = _value_from(pod, variable["valueFrom"], facts, config_map)
        else:
            value = expand(variable.get("value") or "", variables)
        if value is not None:
            variables[variable["name"]] = value
    return variables


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` by its value, and left as it is where there is no such variable; `$$` is one dollar."""

    def value(match: re.Match[str]) -> str:
        wanted = match["name"]
        return "$" if wanted is None else variables.get(wanted, match[0])

    return _REFERENCE.sub(value, text)


def expand_all(words: Sequence[str] | None, variables: Mapping[str, str]) -> list[str]:
    """A command or its arguments."""
    return [expand(word, variables) for word in words or ()]


def field_value(pod: Object, path: str, facts: PodFacts) -> str:
    """A field of the downward API. NotFound for one that it does not have."""
    if match := _SUBSCRIPT.fullmatch(path):
        return (objects.labels if match["map"] == "labels" else objects.annotations)(pod).get(match["key"], "")
    fields = {
        "metadata.name": name(pod),
        "metadata.namespace": namespace(pod),
        "metadata.uid": uid(pod),
        "spec.nodeName": spec(pod).get("nodeName", ""),
        "spec.serviceAccountName": spec(pod).get("serviceAccountName", "default"),
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path not in fields:
        raise NotFound(f"pod {name(pod)} asks for the field {path}, which the downward API does not have")
    return str(fields[path])


def _from_config_map(pod: Object, source: Mapping[str, Any], config_map: ConfigMapData) -> dict[str, str]:
    reference = source.get("configMapRef")
    if reference is None:
        raise NotFound(f"pod {name(pod)}: envFrom knows configMapRef only")
    data = _data(pod, reference, config_map)
    return {f"{source.get('prefix') or ''}{key}": value for key, value in data.items()}


def _value_from(pod: Object, source: Mapping[str, Any], facts: PodFacts, config_map: ConfigMapData) -> str | None:
    if field := source.get("fieldRef"):
        return field_value(pod, field["fieldPath"], facts)
    if reference := source.get("configMapKeyRef"):
        data = _data(pod, reference, config_map)
        if reference["key"] in data or reference.get("optional"):
            return data.get(reference["key"])
        raise NotFound(f"ConfigMap {namespace(pod)}/{reference['name']} has no key {reference['key']}")
    raise NotFound(f"pod {name(pod)}: valueFrom knows fieldRef and configMapKeyRef only, not {', '.join(source)}")


def _data(pod: Object, reference: Mapping[str, Any], config_map: ConfigMapData) -> Mapping[str, str]:
    try:
        return config_map(namespace(pod), reference["name"])
    except NotFound:
        if reference.get("optional"):
            return {}
        raise
