"""Environment, command and arguments, as the manifest says them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from testbed.agent.environment import PodFacts, environment, expand, expand_all
from testbed.errors import NotFound
from tests.unit.agent.specs import pod

FACTS = PodFacts("10.244.1.2", "198.18.0.11", "10.96.0.1")


def config_map(namespace: str, name: str) -> Mapping[str, str]:
    if (namespace, name) != ("default", "settings"):
        raise NotFound(f"ConfigMap {namespace}/{name} does not exist")
    return {"colour": "blue", "size": "10"}


def variables(*env: dict[str, Any], **container: Any) -> dict[str, str]:
    return environment(pod(), {"name": "main", "env": list(env), **container}, FACTS, config_map)


def field(path: str) -> dict[str, Any]:
    return {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}


def test_every_container_knows_where_the_api_server_is() -> None:
    assert variables() == {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_a_reference_sees_the_variables_before_it_and_no_others() -> None:
    found = variables({"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)"}, {"name": "C", "value": "3"})
    assert found["B"] == "1$(C)"


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"), ("$$(A)", "$(A)"), ("$(NONE)", "$(NONE)"), ("$A", "$A"), ("a$", "a$"), ("$$", "$"), ("$(", "$("),
    ],
)  # fmt: skip
def test_references_are_expanded_as_kubernetes_does(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


def test_command_and_arguments_are_expanded() -> None:
    assert expand_all(["echo", "$(A)"], {"A": "1"}) == ["echo", "1"]
    assert expand_all(None, {}) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "default"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        ("spec.nodeName", "a"),
        ("status.podIP", "10.244.1.2"),
        ("status.hostIP", "198.18.0.11"),
    ],
)
def test_a_field_of_the_pod_becomes_a_variable(path: str, value: str) -> None:
    assert variables(field(path))["X"] == value


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(NotFound, match=r"asks for the field status\.phase"):
        variables(field("status.phase"))


def test_a_key_of_a_config_map_becomes_a_variable() -> None:
    reference = {"configMapKeyRef": {"name": "settings", "key": "colour"}}
    assert variables({"name": "COLOUR", "valueFrom": reference})["COLOUR"] == "blue"


def test_a_whole_config_map_becomes_variables() -> None:
    found = variables(envFrom=[{"configMapRef": {"name": "settings"}, "prefix": "S_"}])
    assert (found["S_colour"], found["S_size"]) == ("blue", "10")


def test_what_is_missing_is_an_error_unless_it_is_optional() -> None:
    absent = {"name": "settings", "key": "none"}
    with pytest.raises(NotFound, match="has no key none"):
        variables({"name": "X", "valueFrom": {"configMapKeyRef": absent}})
    assert "X" not in variables({"name": "X", "valueFrom": {"configMapKeyRef": absent | {"optional": True}}})
    with pytest.raises(NotFound, match="ConfigMap default/nowhere does not exist"):
        variables(envFrom=[{"configMapRef": {"name": "nowhere"}}])
    assert variables(envFrom=[{"configMapRef": {"name": "nowhere", "optional": True}}])
