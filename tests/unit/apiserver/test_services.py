"""Services as kube-apiserver has them: what is refused, what is given, and what survives a change of type."""

import asyncio
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.api.kinds import NAMESPACE, SERVICE
from testbed.api.objects import Key, Object, spec
from testbed.api.selectors import label_selector
from testbed.apiserver.admission.held import values_to_try
from testbed.apiserver.deletion import DeleteOptions
from testbed.apiserver.journal import Journal, Row, StoreUnwritable
from testbed.apiserver.resources import Resources
from testbed.apiserver.store import Store
from testbed.errors import AlreadyExists, Conflict, Invalid, NotFound
from tests.unit.apiserver.parts import SPEC, created, namespace, opened, service

WEB = Key("default", "web")
NODE_PORTS = range(SPEC.services.node_ports[0], SPEC.services.node_ports[1] + 1)
PORT = {"port": 80}
TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")


def balanced(name: str = "web", **fields: Any) -> Object:
    return service(name, type="LoadBalancer", **fields)


def annotated(obj: Object, **annotations: str) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


async def patched(resources: Resources, **fields: Any) -> Object:
    return (await resources.patch(SERVICE, WEB, {"spec": fields})).document


REFUSED: dict[str, tuple[Object, str]] = {
    "external addresses with leading zeros (SVC-42)": (
        service(externalIPs=["010.0.0.1"]), 'spec.externalIPs[0]: Invalid value: "010.0.0.1": must be a valid IP',
    ),
    "an external address of the loopback": (
        service(externalIPs=["127.0.0.1"]), "may not be in the loopback range (127.0.0.0/8, ::1/128)",
    ),
    "an external address of the link": (
        service(externalIPs=["169.254.1.1"]), "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
    ),
    "an external address of a group on the link": (
        service(externalIPs=["224.0.0.5"]), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
    ),
    "an external address that is none at all": (
        service(externalIPs=["0.0.0.0"]), "spec.externalIPs[0]: Invalid value: \"0.0.0.0\": may not be unspecified",
    ),
    "source ranges without a load balancer": (
        service(loadBalancerSourceRanges=["10.0.0.0/8"]),
        "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
    ),
    "a source range that is an address": (
        balanced(loadBalancerSourceRanges=["10.0.0.1"]),
        'spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.1": must be a valid CIDR value',
    ),
    "a source range with a netmask": (balanced(loadBalancerSourceRanges=["10.0.0.0/255.0.0.0"]), "valid CIDR value"),
    "source ranges of an annotation, without a load balancer": (
        annotated(service(), **{"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8"}),
        "metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]: Forbidden",
    ),
    "source ranges of an annotation that are none": (
        annotated(balanced(), **{"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8, x"}),
        "must be a valid CIDR value",
    ),
    "a load balancer's class without one": (
        service(loadBalancerClass="a.b/c"), "spec.loadBalancerClass: Forbidden: may only be used when `type`",
    ),
    "a class that is no qualified name": (balanced(loadBalancerClass="a b"), "spec.loadBalancerClass: Invalid value"),
    "allocateLoadBalancerNodePorts without one": (
        service(allocateLoadBalancerNodePorts=False), "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used",
    ),
    "an external policy of what is not reached from outside": (
        service(externalTrafficPolicy="Local"), "may only be set for externally-accessible services",
    ),
    "an external policy that does not exist": (
        balanced(externalTrafficPolicy="Near"), 'spec.externalTrafficPolicy: Unsupported value: "Near": supported '
        'values: "Cluster", "Local"',
    ),
    "an internal policy that does not exist": (service(internalTrafficPolicy="Near"), "spec.internalTrafficPolicy"),
    "a health check that nobody needs": (
        balanced(healthCheckNodePort=30000), "spec.healthCheckNodePort: Invalid value: 30000: may only be set when",
    ),
    "a health check out of range": (
        balanced(externalTrafficPolicy="Local", healthCheckNodePort=80), "provided port is not in the valid range",
    ),
    "a health check at a node port": (
        balanced(externalTrafficPolicy="Local", healthCheckNodePort=30000, ports=[{"port": 80, "nodePort": 30000}]),
        "spec.healthCheckNodePort: Invalid value: 30000: provided port is already allocated",
    ),
    "a distribution that does not exist": (
        service(trafficDistribution="Near"), 'supported values: "PreferClose", "PreferSameNode", "PreferSameZone"',
    ),
    "an affinity that never ends": (
        service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 86401}}),
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less",
    ),
    "an external name with an address": (
        service(type="ExternalName", externalName="a.b", clusterIP="10.96.0.9"),
        "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
    ),
    "an external name with a family": (
        service(type="ExternalName", externalName="a.b", ipFamilies=["IPv4"]), "spec.ipFamilies: Forbidden",
    ),
    "an external name without a name": (service(type="ExternalName"), "spec.externalName: Required value"),
    "clusterIPs without clusterIP": (
        service(clusterIPs=["10.96.0.9"]), "must be empty when `clusterIP` is not specified",
    ),
    "clusterIPs that begin with another one": (
        service(clusterIP="10.96.0.8", clusterIPs=["10.96.0.9"]), "first value must match `clusterIP`",
    ),
    "two addresses of one family": (
        service(clusterIP="10.96.0.8", clusterIPs=["10.96.0.8", "10.96.0.9"]), "no more than one IP for each IP family",
    ),
    "None and an address": (
        service(clusterIP="None", clusterIPs=["None", "10.96.0.9"]), "'None' must be the first and only value",
    ),
    "a family that this cluster has not": (
        service(ipFamilies=["IPv6"]), 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster',
    ),
    "two families, both required": (
        service(ipFamilyPolicy="RequireDualStack"), "this cluster is not configured for dual-stack services",
    ),
    "a policy of families that does not exist": (service(ipFamilyPolicy="Both"), "spec.ipFamilyPolicy: Unsupported"),
    "a protocol of an application that is no name": (
        service(ports=[{"port": 80, "appProtocol": "a b"}]), "spec.ports[0].appProtocol: Invalid value",
    ),
    "a node port twice": (
        service(type="NodePort", ports=[
            {"name": "a", "port": 1, "nodePort": 30001}, {"name": "b", "port": 2, "nodePort": 30001},
        ]),
        "spec.ports[1].nodePort: Duplicate value: 30001",
    ),
    "a headless load balancer": (balanced(clusterIP="None"), "may not be set to 'None' for LoadBalancer services"),
    "no protocol of ours": (service(ports=[{"port": 80, "protocol": "ICMP"}]), "spec.ports[0].protocol: Unsupported"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_what_no_service_may_say_is_refused(resources: Resources, case: str) -> None:
    obj, said = REFUSED[case]
    with pytest.raises(Invalid) as caught:
        await created(resources, obj)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "obj",
    [
        service(externalIPs=["203.0.113.7"], externalTrafficPolicy="Local"),
        service(trafficDistribution="PreferSameNode"),
        service(ipFamilyPolicy="PreferDualStack"),
        service(ports=[{"port": 80, "appProtocol": "kubernetes.io/h2c"}]),
        service(ports=[{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]),
        service(type="NodePort", externalTrafficPolicy="Local"),
        balanced(loadBalancerSourceRanges=[" 10.0.0.0/8 ", "10.1.2.3/16"], loadBalancerClass="example.com/a"),
        balanced(internalTrafficPolicy="Local", publishNotReadyAddresses=True),
        service(type="ExternalName", externalName="db.example.com.", ports=[]),
    ],
)
async def test_what_a_service_may_say_is_taken(resources: Resources, obj: Object) -> None:
    await created(resources, obj)


def test_the_static_band_comes_last() -> None:
    assert list(values_to_try(6, 2, 3)) == [5, 2, 3, 4, 0, 1]


@given(st.integers(1, 300), st.data())
def test_every_value_is_tried_once(count: int, data: st.DataObject) -> None:
    static = data.draw(st.integers(0, count - 1))
    tried = list(values_to_try(count, static, data.draw(st.integers(0, count))))
    assert sorted(tried) == list(range(count))
    assert tried[count - static :] == list(range(static))


async def test_node_ports_come_from_the_range_of_the_topology_and_from_its_static_band_last(tmp_path: Path) -> None:
    services = replace(SPEC.services, node_ports=(31000, 31039))
    async with opened(tmp_path, services=services) as resources:
        ports = [{"name": f"p{number}", "port": number} for number in range(1, 25)]
        made = await created(resources, service("first", type="NodePort", ports=ports))
        assert {port["nodePort"] for port in made["spec"]["ports"]} == set(range(31016, 31040))
        made = await created(resources, service("second", type="NodePort", ports=ports[:16]))
        assert {port["nodePort"] for port in made["spec"]["ports"]} == set(range(31000, 31016))
        with pytest.raises(Invalid, match="failed to allocate a nodePort: range is full"):
            await created(resources, service("third", type="NodePort"))
        with pytest.raises(Invalid, match="The range of valid ports is 31000-31039"):
            await created(resources, service("fourth", type="NodePort", ports=[{"port": 1, "nodePort": 30000}]))


async def test_a_node_port_is_taken_until_its_service_is_deleted(resources: Resources) -> None:
    mine = {"port": 1, "nodePort": 30123}
    await created(resources, service(type="NodePort", ports=[mine]))
    for taken in (mine, {**mine, "protocol": "UDP"}):
        with pytest.raises(Invalid, match=r"spec.ports\[0\].nodePort: Invalid value: 30123: provided port is already"):
            await created(resources, service("other", type="NodePort", ports=[taken]))
    await resources.delete(SERVICE, WEB, DeleteOptions())
    await created(resources, service("other", type="NodePort", ports=[mine]))


async def test_one_port_over_two_protocols_has_one_node_port(resources: Resources) -> None:
    both = [{"name": "tcp", "port": 53}, {"name": "udp", "port": 53, "protocol": "UDP"}]
    made = await created(resources, service(type="NodePort", ports=both))
    first, second = made["spec"]["ports"]
    assert first["nodePort"] == second["nodePort"]
    again = await patched(resources, ports=both)
    assert again["spec"]["ports"] == made["spec"]["ports"]


async def test_node_ports_follow_their_ports_by_name_and_by_number(resources: Resources) -> None:
    made = await created(
        resources, service(type="NodePort", ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}])
    )
    a, b = (port["nodePort"] for port in made["spec"]["ports"])
    moved = await patched(
        resources, ports=[{"name": "b", "port": 3}, {"name": "c", "port": 1}, {"name": "d", "port": 4}]
    )
    numbers = [port["nodePort"] for port in moved["spec"]["ports"]]
    assert numbers[:2] == [b, a]
    assert numbers[2] not in {a, b}


async def test_a_load_balancer_may_do_without_node_ports(resources: Resources) -> None:
    made = await created(resources, balanced(allocateLoadBalancerNodePorts=False))
    assert "nodePort" not in made["spec"]["ports"][0]
    asked = [{"port": 80, "nodePort": 30080}]
    assert (await patched(resources, ports=asked))["spec"]["ports"][0]["nodePort"] == 30080
    assert "nodePort" not in (await patched(resources, ports=[PORT]))["spec"]["ports"][0]
    await created(resources, service("other", type="NodePort", ports=asked))


async def test_a_load_balancer_keeps_its_node_ports_until_they_are_given_up(resources: Resources) -> None:
    number = spec(await created(resources, balanced()))["ports"][0]["nodePort"]
    kept = await patched(resources, allocateLoadBalancerNodePorts=False)
    assert kept["spec"]["ports"][0]["nodePort"] == number
    assert "nodePort" not in (await patched(resources, ports=[PORT]))["spec"]["ports"][0]


async def test_a_health_check_has_a_port_that_stays_until_it_is_not_needed(resources: Resources) -> None:
    made = await created(resources, balanced(externalTrafficPolicy="Local"))
    number = made["spec"]["healthCheckNodePort"]
    assert number in NODE_PORTS
    with pytest.raises(Invalid, match=r"spec.healthCheckNodePort: Forbidden: field is immutable"):
        await patched(resources, healthCheckNodePort=number + 1 if number + 1 in NODE_PORTS else number - 1)
    with pytest.raises(Invalid, match="already allocated"):
        await created(resources, service("other", type="NodePort", ports=[{"port": 1, "nodePort": number}]))
    applied = balanced(externalTrafficPolicy="Local")
    assert (await resources.update(SERVICE, WEB, applied)).document["spec"]["healthCheckNodePort"] == number
    assert "healthCheckNodePort" not in (await patched(resources, externalTrafficPolicy="Cluster"))["spec"]
    await created(resources, service("other", type="NodePort", ports=[{"port": 1, "nodePort": number}]))


async def test_a_new_port_is_not_given_the_node_port_of_the_services_own_health_check(tmp_path: Path) -> None:
    services = replace(SPEC.services, node_ports=(31000, 31001))
    async with opened(tmp_path, services=services) as resources:
        await created(resources, balanced(externalTrafficPolicy="Local"))
        with pytest.raises(Invalid, match="failed to allocate a nodePort: range is full"):
            await patched(resources, ports=[{"name": "a", "port": 80}, {"name": "b", "port": 81}])


async def test_the_class_of_a_load_balancer_stays(resources: Resources) -> None:
    await created(resources, balanced(loadBalancerClass="a.b/c"))
    with pytest.raises(Invalid, match=r"spec.loadBalancerClass: Invalid value: \"a.b/d\": may not change once set"):
        await patched(resources, loadBalancerClass="a.b/d")
    assert "loadBalancerClass" not in (await patched(resources, type="NodePort"))["spec"]
    assert "loadBalancerClass" not in (await patched(resources, type="LoadBalancer"))["spec"]


def expected_of(kind: str) -> set[str]:
    """The fields that a Service of that type has, beside those that all have."""
    addressed = {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"}
    outside = {"externalTrafficPolicy"}
    return {
        "ExternalName": set[str](),
        "ClusterIP": addressed,
        "NodePort": addressed | outside,
        "LoadBalancer": addressed | outside | {"allocateLoadBalancerNodePorts"},
    }[kind]


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(TYPES, 2)))
async def test_a_service_changes_its_type_in_one_patch(resources: Resources, before: str, after: str) -> None:
    first = await created(resources, service(type=before, externalName="a.b"))
    second = await patched(resources, type=after)
    extra = second["spec"].keys() - first["spec"].keys() | expected_of(before) & second["spec"].keys()
    assert extra - {"internalTrafficPolicy"} == expected_of(after)
    has_ports = after in {"NodePort", "LoadBalancer"}
    assert ["nodePort" in port for port in second["spec"]["ports"]] == [has_ports]
    if {before, after}.isdisjoint({"ExternalName"}):
        assert second["spec"]["clusterIP"] == first["spec"]["clusterIP"]
    if {before, after} == {"NodePort", "LoadBalancer"}:
        assert second["spec"]["ports"] == first["spec"]["ports"]


async def test_an_address_that_was_given_up_is_for_others(resources: Resources) -> None:
    await created(resources, service(type="NodePort", clusterIP="10.96.0.77", ports=[{"port": 1, "nodePort": 30077}]))
    await patched(resources, type="ExternalName", externalName="a.b")
    other = service("other", type="NodePort", clusterIP="10.96.0.77", ports=[{"port": 1, "nodePort": 30077}])
    await created(resources, other)
    assert (await patched(resources, type="ClusterIP"))["spec"]["clusterIP"] != "10.96.0.77"


async def test_a_headless_service_stays_one_until_it_is_an_external_name(resources: Resources) -> None:
    await created(resources, service(clusterIP="None"))
    assert (await patched(resources, ports=[{"port": 81}]))["spec"]["clusterIPs"] == ["None"]
    with pytest.raises(Invalid, match="may not change once set"):
        await patched(resources, clusterIP="10.96.0.5")
    assert "clusterIP" not in (await patched(resources, type="ExternalName", externalName="a.b"))["spec"]
    back = await patched(resources, type="ClusterIP")
    assert IPv4Address(back["spec"]["clusterIP"]) in SPEC.services.cidr


async def test_applying_the_same_manifest_again_changes_nothing(resources: Resources) -> None:
    for kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        manifest = service(f"a-{kind.lower()}", type=kind, ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}])
        made = await created(resources, manifest)
        again = service(f"a-{kind.lower()}", type=kind, ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}])
        assert (await resources.update(SERVICE, Key("default", f"a-{kind.lower()}"), again)).document == made


class FullDisk(Journal):
    """A journal whose next transaction may find no room."""

    is_full = False

    def append(self, rows: Sequence[Row], obsolete: Sequence[int], floors: Mapping[str, int]) -> None:
        if self.is_full:
            raise StoreUnwritable("no space left on device")
        super().append(rows, obsolete, floors)


SMALL = replace(
    SPEC.services,
    cidr=IPv4Network("10.96.0.0/29"),
    kubernetes=IPv4Address("10.96.0.1"),
    dns=IPv4Address("10.96.0.2"),
    node_ports=(30000, 30003),
)
"""Room for four Services, and for as many node ports."""


async def after_failed_commits(path: Path, ticks: Sequence[tuple[bool, Sequence[tuple[str, str]]]]) -> None:
    """Do what each tick says, on a disk that is full in some of them; no value may ever be held twice."""
    journal = FullDisk(path / "store.db")
    store = Store(journal)
    resources = Resources(store, SMALL)
    await resources.create(NAMESPACE, "", namespace("default"))
    for is_full, actions in ticks:
        journal.is_full = is_full
        writes = [asyncio.ensure_future(acted(resources, action, name)) for action, name in actions]
        await asyncio.wait(writes)
        journal.is_full = False
        specs = [spec(record.document) for record in resources.list(SERVICE).records]
        addresses = [fields["clusterIP"] for fields in specs if "clusterIP" in fields]
        ports = [port["nodePort"] for fields in specs for port in fields["ports"] if "nodePort" in port]
        assert len(set(addresses)) == len(addresses)
        assert len(set(ports)) == len(ports)
    for number in range(4):  # what nobody holds is to be had, to the last one
        with suppress(AlreadyExists):
            await acted(resources, "create", f"s{number}")
        await resources.patch(SERVICE, Key("default", f"s{number}"), {"spec": {"type": "NodePort"}})
    store.close()


async def acted(resources: Resources, action: str, name: str) -> None:
    which = Key("default", name)
    with suppress(StoreUnwritable, NotFound, AlreadyExists, Invalid):
        if action == "create":
            await created(resources, service(name, type="NodePort"))
        elif action == "delete":
            await resources.delete(SERVICE, which, DeleteOptions())
        else:
            await resources.patch(SERVICE, which, {"spec": {"type": action, "externalName": "a.b"}})


ACTIONS = st.tuples(
    st.sampled_from(["create", "delete", "ExternalName", "NodePort"]), st.sampled_from([f"s{n}" for n in range(4)])
)


@given(st.lists(st.tuples(st.booleans(), st.lists(ACTIONS, min_size=1, max_size=5)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_nothing_is_given_twice_or_lost_whatever_the_disk_refuses(
    ticks: list[tuple[bool, list[tuple[str, str]]]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(after_failed_commits(Path(directory), ticks))


async def test_the_status_of_a_load_balancer_is_written_apart(resources: Resources) -> None:
    """SVC-44."""
    made = await created(resources, balanced(loadBalancerClass="example.com/internal-vip"))
    assert made["status"] == {"loadBalancer": {}}
    ingress = {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}}
    told = (await resources.patch(SERVICE, WEB, ingress, "status")).document
    assert told["status"]["loadBalancer"]["ingress"] == [{"ip": "203.0.113.1", "ipMode": "VIP"}]
    condition = {"type": "StatusPatched", "status": "True", "reason": "Test", "message": "by a test"}
    told = (await resources.patch(SERVICE, WEB, {"status": {"conditions": [condition]}}, "status")).copy()
    assert told["status"]["conditions"] == [condition]
    assert told["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.1"
    told["status"]["conditions"][0]["status"] = "False"
    told["spec"]["ports"] = [{"port": 99}]
    replaced = (await resources.update(SERVICE, WEB, told, "status")).document
    assert replaced["status"]["conditions"][0]["status"] == "False"
    assert replaced["spec"]["ports"][0]["port"] == 80
    stale = {**told, "metadata": {**told["metadata"], "resourceVersion": "1"}}
    with pytest.raises(Conflict):
        await resources.update(SERVICE, WEB, stale, "status")


@pytest.mark.parametrize(
    ("ingress", "said"),
    [
        ({"ip": "010.0.0.1"}, "status.loadBalancer.ingress[0].ip: Invalid value"),
        ({"ip": "10.0.0.1", "ipMode": "NAT"}, 'supported values: "Proxy", "VIP"'),
        ({"hostname": "a.b", "ipMode": "VIP"}, "may not be specified when `ip` is not set"),
        ({"hostname": "a_b"}, "status.loadBalancer.ingress[0].hostname: Invalid value"),
        ({"hostname": "10.0.0.1"}, "must be a DNS name, not an IP address"),
    ],
)
async def test_a_status_that_makes_no_sense_is_refused(resources: Resources, ingress: Object, said: str) -> None:
    await created(resources, balanced())
    with pytest.raises(Invalid) as caught:
        await resources.patch(SERVICE, WEB, {"status": {"loadBalancer": {"ingress": [ingress]}}}, "status")
    assert said in str(caught.value)


async def test_only_a_load_balancer_has_an_ingress_and_loses_it_with_its_type(resources: Resources) -> None:
    ingress = {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}}
    await created(resources, balanced())
    await resources.patch(SERVICE, WEB, ingress, "status")
    assert (await patched(resources, type="ClusterIP"))["status"] == {"loadBalancer": {}}
    with pytest.raises(Invalid, match=r'may only be used when `spec\.type` is "LoadBalancer"'):
        await resources.patch(SERVICE, WEB, ingress, "status")


async def test_services_are_deleted_by_label(resources: Resources) -> None:
    """SVC-44."""
    for name, team in (("a", "red"), ("b", "blue"), ("c", "red")):
        obj = service(name)
        obj["metadata"]["labels"] = {"team": team}
        await created(resources, obj)
    await resources.delete_all(SERVICE, "default", label_selector("team=red"), DeleteOptions())
    assert [record.document["metadata"]["name"] for record in resources.list(SERVICE, "default").records] == ["b"]
