"""What admission fills in, allocates and keeps."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from testbed.api.kinds import CONFIG_MAP, DEPLOYMENT, NODE, POD, SERVICE, kind_of
from testbed.api.objects import Key, Object, name
from testbed.apiserver.deletion import DeleteOptions
from testbed.apiserver.resources import Resources
from testbed.errors import AlreadyExists, BadRequest, Conflict, Invalid, NotFound
from tests.unit.apiserver.parts import (
    CONTAINER,
    SPEC,
    config_map,
    created,
    deployment,
    namespace,
    node,
    opened,
    pod,
    service,
    with_container,
    with_metadata,
)

WEB = Key("default", "web")


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
    with pytest.raises(Invalid, match="may not change once set"):
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
