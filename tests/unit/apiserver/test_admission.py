import copy
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from testbed.api.kinds import CONFIG_MAP, DEPLOYMENT, NAMESPACE, NODE, POD, SERVICE, kind_of
from testbed.api.objects import Key, Object, name
from testbed.apiserver.deletion import DeleteOptions
from testbed.apiserver.resources import Resources
from testbed.errors import AlreadyExists, BadRequest, Conflict, Forbidden, Invalid, NotFound
from tests.unit.apiserver.parts import SPEC, config_map, deployment, namespace, opened, pod, service

WEB = Key("default", "web")
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
CONTAINER = {"name": "main", "image": "testbed/web"}


@pytest.fixture
async def resources(tmp_path: Path) -> AsyncIterator[Resources]:
    async with opened(tmp_path) as resources:
        yield resources


async def created(resources: Resources, obj: Object) -> Object:
    space = obj["metadata"].get("namespace", "")
    return (await resources.create(kind_of(obj), space, copy.deepcopy(obj))).copy()


async def causes_of(resources: Resources, obj: Object) -> set[tuple[str, str]]:
    """Field and reason of every mistake."""
    with pytest.raises(Invalid) as caught:
        await created(resources, obj)
    return {(cause["field"], cause["reason"].removeprefix("FieldValue")) for cause in caught.value.details["causes"]}


def with_container(**fields: Any) -> Object:
    return pod(containers=[{**CONTAINER, **fields}])


def with_metadata(**fields: Any) -> Object:
    obj = config_map("a")
    obj["metadata"] |= fields
    return obj


def template(**spec: Any) -> Object:
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [CONTAINER], **spec}}


def node(**spec: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "web"}, "spec": spec}


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


async def test_a_pod_gets_the_defaults_of_kubernetes(resources: Resources) -> None:
    probe = {"httpGet": {"port": 80}}
    made = await created(resources, with_container(image="a/b:1", ports=[{"containerPort": 80}], readinessProbe=probe))
    assert made["spec"] == {
        "containers": [
            {
                "name": "main",
                "image": "a/b:1",
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "readinessProbe": {
                    "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                    "timeoutSeconds": 1,
                    "periodSeconds": 10,
                    "successThreshold": 1,
                    "failureThreshold": 3,
                },
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("web", "Always"),
        ("web:latest", "Always"),
        ("host:5000/web", "Always"),
        ("web:1", "IfNotPresent"),
        ("web@sha256:00", "IfNotPresent"),
    ],
)
async def test_a_moving_tag_is_always_pulled(resources: Resources, image: str, policy: str) -> None:
    made = await created(resources, with_container(image=image))
    assert made["spec"]["containers"][0]["imagePullPolicy"] == policy


@pytest.mark.parametrize(
    ("wanted", "qos"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
    ],
)
async def test_quality_of_service_follows_from_resources(resources: Resources, wanted: Object, qos: str) -> None:
    assert (await created(resources, with_container(resources=wanted)))["status"]["qosClass"] == qos


async def test_ports_on_the_hosts_network_are_host_ports(resources: Resources) -> None:
    made = await created(resources, {**with_container(ports=[{"containerPort": 80}])} | pod_on_host())
    assert made["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]


def pod_on_host() -> Object:
    return {"spec": {"hostNetwork": True, "containers": [{**CONTAINER, "ports": [{"containerPort": 80}]}]}}


async def test_a_deployment_gets_the_defaults_of_kubernetes(resources: Resources) -> None:
    made = await created(resources, deployment())
    fields = {field: value for field, value in made["spec"].items() if field not in {"template", "selector"}}
    assert fields == {
        "replicas": 1,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    }
    assert made["spec"]["template"]["spec"]["restartPolicy"] == "Always"
    assert made["metadata"]["generation"] == 1


async def test_a_service_gets_the_defaults_of_kubernetes(resources: Resources) -> None:
    made = await created(resources, service(sessionAffinity="ClientIP"))
    address = made["spec"].pop("clusterIP")
    assert IPv4Address(address) in SPEC.services.cidr
    assert made["spec"] == {
        "type": "ClusterIP",
        "clusterIPs": [address],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
    }
    assert made["status"] == {"loadBalancer": {}}


async def test_a_namespace_is_labelled_with_its_name(resources: Resources) -> None:
    made = await created(resources, namespace("blue"))
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "blue"}
    assert made["status"] == {"phase": "Active"}


async def test_what_only_the_server_writes_is_not_taken_from_a_client(resources: Resources) -> None:
    first = await created(resources, with_metadata(uid="mine", creationTimestamp="2001-01-01T00:00:00Z", generation=7))
    assert first["metadata"]["uid"] != "mine"
    assert first["metadata"]["creationTimestamp"] > "2020"
    stolen = {
        **first,
        "metadata": {**first["metadata"], "creationTimestamp": "2001-01-01T00:00:00Z", "labels": {"a": "b"}},
    }
    second = (await resources.update(CONFIG_MAP, Key("default", "a"), stolen)).document
    assert second["metadata"]["creationTimestamp"] == first["metadata"]["creationTimestamp"]
    with pytest.raises(BadRequest, match="resourceVersion should not be set"):
        await created(resources, with_metadata(name="b", resourceVersion="1"))


async def test_nothing_is_created_in_a_namespace_that_does_not_exist(resources: Resources) -> None:
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await created(resources, config_map("a", "nowhere"))


async def test_cluster_addresses_differ_and_reserved_ones_are_not_handed_out(tmp_path: Path) -> None:
    cidr = IPv4Network("10.96.0.0/28")
    reserved = {"kubernetes": IPv4Address("10.96.0.1"), "dns": IPv4Address("10.96.0.10")}
    async with opened(tmp_path, services=replace(SPEC.services, cidr=cidr, **reserved)) as resources:  # type: ignore[arg-type]
        given = [(await created(resources, service(f"s{n}")))["spec"]["clusterIP"] for n in range(12)]
        assert len(set(given)) == 12
        assert not {str(address) for address in (*reserved.values(), cidr[0], cidr[-1])} & set(given)
        with pytest.raises(Invalid, match=r"the range 10\.96\.0\.0/28 is full"):
            await created(resources, service("late"))
        asked = await created(resources, service("dns", clusterIP="10.96.0.10"))
        assert asked["spec"]["clusterIPs"] == ["10.96.0.10"]


async def test_an_address_is_given_once_until_its_service_is_deleted(resources: Resources) -> None:
    await created(resources, service(clusterIP="10.96.0.77"))
    with pytest.raises(Invalid, match="provided IP is already allocated"):
        await created(resources, service("other", clusterIP="10.96.0.77"))
    await resources.delete(SERVICE, WEB, DeleteOptions())
    await created(resources, service("other", clusterIP="10.96.0.77"))


async def test_allocations_survive_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as resources:
        await created(resources, service(clusterIP="10.96.0.77"))
        await created(resources, service("np", type="NodePort", ports=[{"port": 1, "nodePort": 31000}]))
    async with opened(tmp_path) as resources:
        for taken in (
            service("a", clusterIP="10.96.0.77"),
            service("b", type="NodePort", ports=[{"port": 1, "nodePort": 31000}]),
        ):
            with pytest.raises(Invalid, match="already allocated"):
                await created(resources, taken)


async def test_a_service_keeps_its_address(resources: Resources) -> None:
    first = await created(resources, service())
    with pytest.raises(Invalid, match="field is immutable"):
        await resources.patch(SERVICE, WEB, {"spec": {"clusterIP": "10.96.0.200"}})
    applied = service(ports=[{"port": 81}])
    second = (await resources.update(SERVICE, WEB, applied)).document
    assert second["spec"]["clusterIP"] == first["spec"]["clusterIP"]


async def test_a_service_that_becomes_an_external_name_gives_up_its_address(resources: Resources) -> None:
    await created(resources, service(clusterIP="10.96.0.77"))
    external = (await resources.patch(SERVICE, WEB, {"spec": {"type": "ExternalName", "externalName": "a.b"}})).copy()
    assert "clusterIP" not in external["spec"]
    await created(resources, service("other", clusterIP="10.96.0.77"))
    back = (await resources.patch(SERVICE, WEB, {"spec": {"type": "ClusterIP", "externalName": None}})).document
    assert IPv4Address(back["spec"]["clusterIP"]) in SPEC.services.cidr
    assert back["spec"]["clusterIP"] != "10.96.0.77"


async def test_a_headless_service_has_no_address_and_needs_no_port(resources: Resources) -> None:
    made = await created(resources, service(clusterIP="None", ports=[]))
    assert made["spec"]["clusterIPs"] == ["None"]
    await created(resources, service("another", clusterIP="None", ports=[]))


async def test_node_ports_are_allocated_kept_and_given_up(resources: Resources) -> None:
    made = await created(
        resources, service(type="NodePort", ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}])
    )
    numbers = [port["nodePort"] for port in made["spec"]["ports"]]
    assert len(set(numbers)) == 2
    assert all(30000 <= number < 32768 for number in numbers)
    applied = service(type="NodePort", ports=[{"name": "a", "port": 1}, {"name": "c", "port": 3}])
    again = (await resources.update(SERVICE, WEB, applied)).document
    assert again["spec"]["ports"][0]["nodePort"] == numbers[0]
    with pytest.raises(Invalid, match="already allocated"):
        await created(resources, service("x", type="NodePort", ports=[{"port": 9, "nodePort": numbers[0]}]))
    plain = (await resources.patch(SERVICE, WEB, {"spec": {"type": "ClusterIP"}})).document
    assert not any("nodePort" in port for port in plain["spec"]["ports"])
    await created(resources, service("x", type="NodePort", ports=[{"port": 9, "nodePort": numbers[0]}]))


@pytest.mark.parametrize(
    ("obj", "patch", "said"),
    [
        (pod(), {"spec": {"hostNetwork": True}}, "pod updates may not change fields other than"),
        (pod(nodeName="a"), {"spec": {"nodeName": "b"}}, "pod updates may not change fields other than"),
        (deployment(), {"spec": {"selector": {"matchLabels": {"app": "x"}}}}, "field is immutable"),
        (
            {**config_map("web", a="1"), "immutable": True},
            {"data": {"a": "2"}},
            "field is immutable when `immutable` is set",
        ),
        (
            node(podCIDR="10.244.1.0/24"),
            {"spec": {"podCIDR": "10.244.2.0/24"}},
            "may not change podCIDR",
        ),
    ],
)
async def test_what_is_fixed_stays(resources: Resources, obj: Object, patch: Object, said: str) -> None:
    kind = kind_of(obj)
    await created(resources, obj)
    with pytest.raises(Invalid, match=said):
        await resources.patch(kind, Key("default" if kind.namespaced else "", "web"), patch)


async def test_a_pod_may_change_its_image_and_be_bound_once(resources: Resources) -> None:
    await created(resources, pod())
    changed = [{**CONTAINER, "image": "testbed/netexec"}]
    await resources.patch(POD, WEB, {"spec": {"containers": changed}})
    await resources.bind(WEB, "a")
    with pytest.raises(Conflict, match='pod web is already assigned to node "a"'):
        await resources.bind(WEB, "b")
    bound = resources.get(POD, WEB).document
    assert bound["spec"]["nodeName"] == "a"
    assert bound["status"]["conditions"][0]["type"] == "PodScheduled"


async def test_generation_counts_changes_of_the_spec_alone(resources: Resources) -> None:
    await created(resources, deployment())
    generations = []
    for patch, subresource in (
        ({"metadata": {"labels": {"a": "b"}}}, ""),
        ({"status": {"replicas": 1}}, "status"),
        ({"spec": {"replicas": 3}}, ""),
    ):
        record = await resources.patch(DEPLOYMENT, Key("default", "web"), patch, subresource)
        generations.append(record.document["metadata"]["generation"])
    assert generations == [1, 1, 2]


async def test_deleting_a_namespace_deletes_what_it_holds_and_then_itself(resources: Resources) -> None:
    await created(resources, namespace("blue"))
    await created(resources, config_map("a", "blue"))
    bound = pod(nodeName="n")
    bound["metadata"]["namespace"] = "blue"
    await created(resources, bound)
    _, is_gone = await resources.delete(NAMESPACE, Key("", "blue"), DeleteOptions())
    assert not is_gone
    assert resources.get(NAMESPACE, Key("", "blue")).document["status"]["phase"] == "Terminating"
    assert not resources.list(CONFIG_MAP, "blue").records
    with pytest.raises(Forbidden, match="because it is being terminated"):
        await created(resources, config_map("b", "blue"))
    await resources.delete(POD, Key("blue", "web"), DeleteOptions(grace_period_s=0))
    assert [name(record.document) for record in resources.list(NAMESPACE).records] == ["default"]


async def test_an_empty_namespace_goes_at_once_and_a_permanent_one_never(resources: Resources) -> None:
    await created(resources, namespace("blue"))
    _, is_gone = await resources.delete(NAMESPACE, Key("", "blue"), DeleteOptions())
    assert is_gone
    with pytest.raises(Forbidden, match="this namespace may not be deleted"):
        await resources.delete(NAMESPACE, Key("", "default"), DeleteOptions())


async def test_the_deletion_of_a_namespace_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as resources:
        await created(resources, namespace("blue"))
        held = config_map("a", "blue")
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await created(resources, held)
        await resources.delete(NAMESPACE, Key("", "blue"), DeleteOptions())
    async with opened(tmp_path) as resources:
        await resources.resume()
        await resources.patch(CONFIG_MAP, Key("blue", "a"), {"metadata": {"finalizers": None}})
        with pytest.raises(NotFound):
            resources.get(NAMESPACE, Key("", "blue"))


async def test_nothing_may_newly_hold_what_is_being_deleted(resources: Resources) -> None:
    await created(resources, with_metadata(finalizers=["example.com/hold"]))
    await resources.delete(CONFIG_MAP, Key("default", "a"), DeleteOptions())
    patch = {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}
    with pytest.raises(Invalid, match="no new finalizers can be added"):
        await resources.patch(CONFIG_MAP, Key("default", "a"), patch)


async def test_a_foreground_deletion_waits_for_the_garbage_collector(resources: Resources) -> None:
    await created(resources, deployment())
    which = Key("default", "web")
    _, is_gone = await resources.delete(DEPLOYMENT, which, DeleteOptions(propagation="Foreground"))
    assert not is_gone
    assert resources.get(DEPLOYMENT, which).document["metadata"]["finalizers"] == ["foregroundDeletion"]
    await resources.patch(DEPLOYMENT, which, {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        resources.get(DEPLOYMENT, which)


async def test_a_node_registers_with_its_status_and_then_reports_it_apart(resources: Resources) -> None:
    await created(resources, node() | {"status": {"capacity": {"pods": "110"}}})
    await resources.patch(NODE, Key("", "web"), {"status": None})
    assert resources.get(NODE, Key("", "web")).document["status"] == {"capacity": {"pods": "110"}}


async def test_a_name_that_was_asked_for_is_taken_whatever_it_was_generated_from(resources: Resources) -> None:
    first = await created(resources, with_metadata(name="", generateName="a-"))
    assert name(first).startswith("a-")
    again = with_metadata(name=name(first), generateName="a-")
    with pytest.raises(AlreadyExists):
        await created(resources, again)


async def test_a_namespace_is_held_by_what_it_holds_whatever_its_spec_says(resources: Resources) -> None:
    await created(resources, namespace("blue") | {"spec": {"finalizers": []}})
    await created(resources, pod(nodeName="a") | {"metadata": {"name": "web", "namespace": "blue"}})
    which = Key("", "blue")
    await resources.patch(NAMESPACE, which, {"metadata": {"finalizers": ["example.com/hold"]}})
    await resources.delete(NAMESPACE, which, DeleteOptions())
    await resources.patch(NAMESPACE, which, {"spec": {"finalizers": []}})
    assert resources.get(NAMESPACE, which).document["spec"] == {"finalizers": ["kubernetes"]}
    await resources.delete(POD, Key("blue", "web"), DeleteOptions(grace_period_s=0))
    assert resources.get(NAMESPACE, which).document["spec"] == {"finalizers": []}
    await resources.update(NAMESPACE, which, namespace("blue"))
    with pytest.raises(NotFound):
        resources.get(NAMESPACE, which)


async def test_a_pod_that_may_take_for_ever_can_be_deleted(resources: Resources) -> None:
    await created(resources, pod(nodeName="a", terminationGracePeriodSeconds=1 << 62))
    going, is_gone = await resources.delete(POD, WEB, DeleteOptions())
    assert not is_gone
    assert going.document["metadata"]["deletionGracePeriodSeconds"] > 10**8


async def test_a_deletion_that_is_under_way_is_not_held_by_another_wish(resources: Resources) -> None:
    await created(resources, pod(nodeName="a"))
    await resources.delete(POD, WEB, DeleteOptions())
    _, is_gone = await resources.delete(POD, WEB, DeleteOptions(grace_period_s=0, propagation="Foreground"))
    assert is_gone
