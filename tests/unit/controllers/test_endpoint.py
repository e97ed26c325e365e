"""What one pod is to a Service."""

from typing import Any

import pytest

from testbed.api.objects import Object
from testbed.controllers.endpoint import IPV4, Port, endpoint_of, hints_for, ports_of
from testbed.controllers.endpoints import OVER_CAPACITY, endpoints_of
from tests.unit.controllers.harness import pod, service

ZONE = {"forZones": [{"name": "north"}]}
NODE = {"forNodes": [{"name": "a"}]}


def running(*, ready: bool = True, **fields: Any) -> Object:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    state = {"podIP": "10.244.1.2", "podIPs": [{"ip": "10.244.1.2"}], "conditions": conditions}
    return {**pod("one", "a", **fields), "status": state}


@pytest.mark.parametrize(
    ("distribution", "hints"),
    [
        (None, {}),
        ("PreferClose", ZONE),
        ("PreferSameZone", ZONE),
        ("PreferSameNode", ZONE | NODE),
    ],
)
def test_hints_follow_the_traffic_distribution(distribution: str | None, hints: dict[str, Any]) -> None:
    wanted = service(trafficDistribution=distribution)
    assert endpoint_of(wanted, running(), IPV4, "north").get("hints", {}) == hints


def test_a_node_without_a_zone_gives_no_hint_of_one() -> None:
    assert hints_for(service(trafficDistribution="PreferClose"), "a", "") == {}
    assert hints_for(service(trafficDistribution="PreferSameNode"), "a", "") == NODE


def test_only_endpoints_that_are_ready_are_meant_for_anybody() -> None:
    near = service(trafficDistribution="PreferClose")
    assert "hints" not in endpoint_of(near, running(ready=False), IPV4, "north")
    published = service(trafficDistribution="PreferClose", publishNotReadyAddresses=True)
    assert endpoint_of(published, running(ready=False), IPV4, "north")["hints"] == ZONE


def test_a_sidecar_may_have_the_port_that_is_meant() -> None:
    sidecar = {"name": "proxy", "ports": [{"name": "admin", "containerPort": 9901}], "restartPolicy": "Always"}
    wanted = service(ports=[{"port": 80, "targetPort": "admin"}])
    assert ports_of(wanted, running(initContainers=[sidecar])) == (Port("", "TCP", 9901),)
    assert ports_of(wanted, running(initContainers=[{**sidecar, "restartPolicy": ""}])) == ()


def test_a_name_means_the_port_of_the_same_protocol() -> None:
    ports = [{"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"name": "dns", "containerPort": 54}]
    wanted = service(ports=[{"port": 53, "targetPort": "dns"}])
    assert ports_of(wanted, running(containers=[{"name": "c", "ports": ports}])) == (Port("", "TCP", 54),)


def test_endpoints_past_a_thousand_are_cut_the_unready_first_and_say_so() -> None:
    def numbered(number: int, *, ready: bool) -> Object:
        made = running(ready=ready)
        made["metadata"] = {**made["metadata"], "name": f"p{number}", "uid": str(number)}
        return made

    owner = service()
    owner["metadata"]["uid"] = "u"
    pods = [numbered(number, ready=number % 2 == 0) for number in range(1998)]
    told = endpoints_of(owner, pods)
    [subset] = told["subsets"]
    assert (len(subset["addresses"]), len(subset["notReadyAddresses"])) == (999, 1)
    assert told["metadata"]["annotations"] == {OVER_CAPACITY: "truncated"}
    assert endpoints_of(owner, pods[:1000])["metadata"]["annotations"] == {}
