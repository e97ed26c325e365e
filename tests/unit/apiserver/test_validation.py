"""What admission refuses, and in which words."""

from typing import Any

import pytest

from testbed.api.objects import Key, Object
from testbed.apiserver.resources import Resources
from testbed.errors import BadRequest, Invalid
from tests.unit.apiserver.parts import (
    CONTAINER,
    config_map,
    created,
    deployment,
    namespace,
    node,
    pod,
    service,
    template,
    with_container,
    with_metadata,
)

WEB = Key("default", "web")
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


async def causes_of(resources: Resources, obj: Object) -> set[tuple[str, str]]:
    """Field and reason of every mistake."""
    with pytest.raises(Invalid) as caught:
        await created(resources, obj)
    return {(cause["field"], cause["reason"].removeprefix("FieldValue")) for cause in caught.value.details["causes"]}


def matching(operator: str) -> Object:
    return {"matchExpressions": [{"key": "a", "operator": operator}]}


def endpoint_slice(**fields: Any) -> Object:
    meta = {"name": "web-1", "namespace": "default"}
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, **fields}


MISTAKES: dict[str, tuple[Object, set[tuple[str, str]]]] = {
    "a name in capitals": (with_metadata(name="Web"), {("metadata.name", "Invalid")}),
    "a name too long": (with_metadata(name="a" * 254), {("metadata.name", "Invalid")}),
    "no name": (with_metadata(name=""), {("metadata.name", "Required")}),
    "a label with spaces": (with_metadata(labels={"a b": "c d"}), {("metadata.labels", "Invalid")}),
    "a bare finalizer": (with_metadata(finalizers=["mine"]), {("metadata.finalizers", "Invalid")}),
    "an owner without a uid": (
        with_metadata(ownerReferences=[{"apiVersion": "v1", "kind": "Pod", "name": "a"}]),
        {("metadata.ownerReferences[0].uid", "Invalid")},
    ),
    "annotations too large": (with_metadata(annotations={"a": "x" * 270_000}), {("metadata.annotations", "TooLong")}),
    "a key that is no file name": (config_map("a", **{"a/b": "c"}), {("data[a/b]", "Invalid")}),
    "a value too large": (config_map("a", big="x" * (1 << 20) + "y"), {("", "TooLong")}),
    "a pod without containers": (pod(containers=[]), {("spec.containers", "Required")}),
    "a container without anything": (
        pod(containers=[{}]), {("spec.containers[0].name", "Required"), ("spec.containers[0].image", "Required")},
    ),
    "two containers of one name": (pod(containers=[CONTAINER, CONTAINER]), {("spec.containers[1].name", "Duplicate")}),
    "policies that do not exist": (
        pod(restartPolicy="Sometimes", dnsPolicy="Never"),
        {("spec.restartPolicy", "NotSupported"), ("spec.dnsPolicy", "NotSupported")},
    ),
    "a port out of range": (
        with_container(ports=[{"containerPort": 70000}]), {("spec.containers[0].ports[0].containerPort", "Invalid")},
    ),
    "a protocol that does not exist": (
        with_container(ports=[{"containerPort": 1, "protocol": "IPX"}]),
        {("spec.containers[0].ports[0].protocol", "NotSupported")},
    ),
    "a port named twice": (
        with_container(ports=[{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]),
        {("spec.containers[0].ports[1].name", "Duplicate")},
    ),
    "a host port twice": (
        with_container(ports=[{"containerPort": 1, "hostPort": 5}, {"containerPort": 2, "hostPort": 5}]),
        {("spec.containers[0].ports[1].hostPort", "Duplicate")},
    ),
    "a host port that differs on the host's network": (
        pod(hostNetwork=True, containers=[{**CONTAINER, "ports": [{"containerPort": 1, "hostPort": 2}]}]),
        {("spec.containers[0].ports[0].hostPort", "Invalid")},
    ),
    "a mount of no volume": (
        with_container(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        {("spec.containers[0].volumeMounts[0].name", "NotFound")},
    ),
    "a probe of two kinds": (
        with_container(readinessProbe={"exec": {"command": ["true"]}, "tcpSocket": {"port": 1}}),
        {("spec.containers[0].readinessProbe.tcpSocket", "Forbidden")},
    ),
    "a probe of no kind": (with_container(livenessProbe={}), {("spec.containers[0].livenessProbe", "Required")}),
    "a liveness probe that must succeed twice": (
        with_container(livenessProbe={"tcpSocket": {"port": 1}, "successThreshold": 2}),
        {("spec.containers[0].livenessProbe.successThreshold", "Invalid")},
    ),
    "a grace for readiness": (
        with_container(readinessProbe={"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 1}),
        {("spec.containers[0].readinessProbe.terminationGracePeriodSeconds", "Invalid")},
    ),
    "a probe that nobody makes": (
        with_container(livenessProbe={"grpc": {"port": 1}}), {("spec.containers[0].livenessProbe.grpc", "Forbidden")},
    ),
    "a hook of two kinds": (
        with_container(lifecycle={"preStop": {"exec": {"command": ["true"]}, "sleep": {"seconds": 1}}}),
        {("spec.containers[0].lifecycle.preStop.sleep", "Forbidden")},
    ),
    "a hook that nobody runs": (
        with_container(lifecycle={"postStart": {"tcpSocket": {"port": 1}}, "stopSignal": "SIGQUIT"}),
        {
            ("spec.containers[0].lifecycle.postStart.tcpSocket", "Forbidden"),
            ("spec.containers[0].lifecycle.stopSignal", "Forbidden"),
        },
    ),
    "a hook that sleeps beyond its grace": (
        with_container(lifecycle={"preStop": {"sleep": {"seconds": 31}}}),
        {("spec.containers[0].lifecycle.preStop.sleep", "Invalid")},
    ),
    "a container with a restart policy of its own": (
        with_container(restartPolicy="Never", restartPolicyRules=[]),
        {
            ("spec.containers[0].restartPolicy", "Forbidden"),
            ("spec.containers[0].restartPolicyRules", "Forbidden"),
        },
    ),
    "an init container with what only containers have": (
        pod(initContainers=[{**CONTAINER, "name": "init", "lifecycle": {}, "restartPolicy": "OnFailure"}]),
        {("spec.initContainers[0].lifecycle", "Forbidden"), ("spec.initContainers[0].restartPolicy", "NotSupported")},
    ),
    "a variable without a name": (
        with_container(env=[{"value": "1"}]), {("spec.containers[0].env[0].name", "Required")},
    ),
    "DNS of its own without a server": (pod(dnsPolicy="None"), {("spec.dnsConfig.nameservers", "Required")}),
    "a service without ports": (service(ports=[]), {("spec.ports", "Required")}),
    "a service whose name begins with a digit": (service("1web"), {("metadata.name", "Invalid")}),
    "two ports without names": (
        service(ports=[{"port": 1}, {"port": 2}]),
        {("spec.ports[0].name", "Required"), ("spec.ports[1].name", "Required")},
    ),
    "a service port twice": (
        service(ports=[{"name": "a", "port": 1}, {"name": "b", "port": 1}]), {("spec.ports[1]", "Duplicate")},
    ),
    "one port's name twice": (
        service(ports=[{"name": "a", "port": 1}, {"name": "a", "port": 2}]), {("spec.ports[1].name", "Duplicate")},
    ),
    "no port's number": (service(ports=[{"name": "a"}]), {("spec.ports[0].port", "Invalid")}),
    "a type that does not exist": (service(type="Magic"), {("spec.type", "NotSupported")}),
    "an address out of range": (service(clusterIP="10.97.0.1"), {("spec.clusterIPs", "Invalid")}),
    "the network's own address": (service(clusterIP="10.96.0.0"), {("spec.clusterIPs", "Invalid")}),
    "an address with leading zeros": (service(clusterIP="10.96.0.010"), {("spec.clusterIPs[0]", "Invalid")}),
    "an external address that is none": (service(externalIPs=["1.2.3.256"]), {("spec.externalIPs[0]", "Invalid")}),
    "an external name that is none": (
        service(type="ExternalName", externalName="a_b", ports=[]), {("spec.externalName", "Invalid")},
    ),
    "an affinity that does not exist": (service(sessionAffinity="Cookie"), {("spec.sessionAffinity", "NotSupported")}),
    "a node port without its type": (
        service(ports=[{"port": 1, "nodePort": 30001}]), {("spec.ports[0].nodePort", "Forbidden")},
    ),
    "a node port out of range": (
        service(type="NodePort", ports=[{"port": 1, "nodePort": 80}]), {("spec.ports[0].nodePort", "Invalid")},
    ),
    "a headless node port": (service(type="NodePort", clusterIP="None"), {("spec.clusterIPs[0]", "Invalid")}),
    "a deployment without anything": (
        {**deployment(), "spec": {}}, {("spec.selector", "Required"), ("spec.template", "Required")},
    ),
    "an empty selector": (deployment(selector={"matchLabels": {}}), {("spec.selector", "Invalid")}),
    "a selector that its pods do not match": (
        deployment(selector={"matchLabels": {"app": "other"}}), {("spec.template.metadata.labels", "Invalid")},
    ),
    "a selector's operator that does not exist": (
        deployment(selector={"matchExpressions": [{"key": "app", "operator": "Like", "values": ["web"]}]}),
        {("spec.selector.matchExpressions[0].operator", "Invalid")},
    ),
    "a template that does not restart": (
        deployment(template=template(restartPolicy="Never")), {("spec.template.spec.restartPolicy", "NotSupported")},
    ),
    "a rollout that can do nothing": (
        deployment(strategy={"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": 0}}),
        {("spec.strategy.rollingUpdate.maxUnavailable", "Invalid")},
    ),
    "a deadline before anything can be available": (
        deployment(progressDeadlineSeconds=5, minReadySeconds=5), {("spec.progressDeadlineSeconds", "Invalid")},
    ),
    "a negative scale": (deployment(replicas=-1), {("spec.replicas", "Invalid")}),
    "a share that is none": (
        deployment(strategy={"rollingUpdate": {"maxSurge": "9" * 400 + "%", "maxUnavailable": -1}}),
        {(f"spec.strategy.rollingUpdate.{share}", "Invalid") for share in ("maxSurge", "maxUnavailable")},
    ),
    "an affinity for nothing": (
        pod(affinity={"nodeAffinity": {REQUIRED: {}}}),
        {(f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms", "Required")},
    ),
    "affinities by operators that are not served": (
        pod(
            affinity={
                "nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [matching("Gt")]}},
                "podAntiAffinity": {REQUIRED: [{"labelSelector": matching("?")}]},
            }
        ),
        {
            (f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0].matchExpressions[0].operator", "Invalid"),
            (f"spec.affinity.podAntiAffinity.{REQUIRED}[0].labelSelector.matchExpressions[0].operator", "Invalid"),
            (f"spec.affinity.podAntiAffinity.{REQUIRED}[0].topologyKey", "Required"),
        },
    ),
    "a slice without a type": (endpoint_slice(), {("addressType", "Required")}),
    "an endpoint without an address": (
        endpoint_slice(addressType="IPv4", endpoints=[{"addresses": []}]), {("endpoints[0].addresses", "Required")},
    ),
    "an endpoint that is no address": (
        endpoint_slice(addressType="IPv4", endpoints=[{"addresses": ["web"]}]),
        {("endpoints[0].addresses[0]", "Invalid")},
    ),
    "a taint that does nothing": (
        node(taints=[{"key": "a", "effect": "No"}]),
        {("spec.taints[0].effect", "NotSupported")},
    ),
    "a namespace with a dot": (namespace("a.b"), {("metadata.name", "Invalid")}),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
async def test_every_mistake_is_told_with_its_field(resources: Resources, case: str) -> None:
    obj, expected = MISTAKES[case]
    assert await causes_of(resources, obj) >= expected


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        (pod(containers={}), "spec.containers: expected a list, got an object"),
        (pod(nodeName=7), "spec.nodeName: expected a string, got an integer"),
        (pod(hostNetwork="yes"), "spec.hostNetwork: expected a boolean, got 'yes'"),
        ({**pod(), "spec": "x"}, "spec: expected an object, got 'x'"),
        (with_container(env=[1]), "spec.containers[0].env[0]: expected an object, got an integer"),
        (with_container(env=[{"name": "a", "value": 1}]), "spec.containers[0].env[0].value: expected a string"),
        (config_map("a") | {"data": {"a": 1}}, "data[a]: expected a string, got an integer"),
        (with_metadata(labels={"a": True}), "metadata.labels[a]: expected a string, got a boolean"),
        (service(ports=[{"port": "80"}]), "spec.ports[0].port: expected an integer, got '80'"),
    ],
)
async def test_a_document_of_another_shape_is_a_bad_request(resources: Resources, obj: Object, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await created(resources, obj)
    assert f"cannot be handled as a {obj['kind']}" in str(caught.value)
    assert said in str(caught.value)


async def test_several_mistakes_are_told_at_once_in_kubernetes_words(resources: Resources) -> None:
    with pytest.raises(Invalid) as caught:
        await created(resources, service(ports=[{"port": 0, "targetPort": 80}], type="Magic"))
    assert str(caught.value) == (
        'Service "web" is invalid: [spec.type: Unsupported value: "Magic": supported values: "ClusterIP", '
        '"ExternalName", "LoadBalancer", "NodePort", spec.ports[0].port: Invalid value: 0: must be between 1 and '
        "65535, inclusive]"
    )
    assert caught.value.details["kind"] == "Service"
    assert caught.value.details["name"] == "web"
