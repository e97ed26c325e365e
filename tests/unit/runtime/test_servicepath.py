"""The way of a Service, from objects and what node daemons said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from testbed.api.objects import Object
from testbed.runtime.nodedaemons import silent
from testbed.runtime.servicepath import ServicePath, described


def service(labels: Mapping[str, str] | None = None, *, ingress: str = "", **fields: Any) -> Object:
    spec = {"type": "ClusterIP", "clusterIP": "10.96.0.20", "selector": {"app": "web"}, **fields}
    status = {"loadBalancer": {"ingress": [{"ip": ingress}]}} if ingress else {}
    return {"metadata": {"namespace": "shop", "name": "web", "labels": labels or {}}, "spec": spec, "status": status}


def endpoint(address: str, node: str, pod: str = "", **conditions: bool) -> Object:
    target = {"targetRef": {"kind": "Pod", "name": pod}} if pod else {}
    return {"addresses": [address], "nodeName": node, "conditions": conditions, **target}


def slice_(*endpoints: Object, ports: Sequence[tuple[str, int]] = (("", 8080),)) -> Object:
    return {"endpoints": list(endpoints), "ports": [{"name": name, "port": number} for name, number in ports]}


def worker(name: str, address: str) -> Object:
    return {
        "metadata": {"name": name, "labels": {"testbed/role": "worker"}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


NODES = [worker("a", "198.18.0.10"), worker("b", "198.18.0.11")]


def path(service: Object, *slices: Object) -> ServicePath:
    return described(service, slices, NODES, [])


def test_endpoints_have_pods_nodes_and_states_in_the_order_of_addresses() -> None:
    found = path(
        service(),
        slice_(
            endpoint("10.244.1.10", "b", "web-2", ready=True),
            endpoint("10.244.1.9", "b", "web-1", ready=False, serving=True, terminating=True),
            endpoint("10.244.0.3", "a", "web-3", ready=False, serving=False, terminating=True),
        ),
        slice_(endpoint("10.244.0.2", "", ready=False)),
    )
    assert [(row["address"], row["pod"], row["node"], row["state"]) for row in found.endpoints] == [
        ("10.244.0.2", "", "", "not ready"),
        ("10.244.0.3", "web-3", "a", "terminating"),
        ("10.244.1.9", "web-1", "b", "terminating, still serving"),
        ("10.244.1.10", "web-2", "b", "ready"),
    ]


def test_several_ports_are_named() -> None:
    ports = [
        {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]
    found = path(service(ports=ports), slice_(endpoint("10.244.0.2", "a"), ports=[("http", 8080), ("dns", 5353)]))
    assert [tuple(row.values()) for row in found.ports] == [
        ("80/TCP", "http", "web", "30080"),
        ("53/UDP", "dns", "53", ""),
    ]
    assert found.endpoints[0]["port"] == "http 8080, dns 5353"


@pytest.mark.parametrize(
    ("policy", "nodes"),
    [("Cluster", ["a (198.18.0.10)", "b (198.18.0.11)"]), ("Local", ["b (198.18.0.11)"])],
)
def test_the_switch_sends_to_the_nodes_that_the_policy_leaves(policy: str, nodes: list[str]) -> None:
    balanced = service(type="LoadBalancer", externalTrafficPolicy=policy, ingress="192.0.2.7")
    found = path(balanced, slice_(endpoint("10.244.1.10", "b", ready=True)))
    assert found.switch == {"192.0.2.7": nodes}
    assert found.facts["load balancer"] == "192.0.2.7"


def test_nobody_takes_what_comes_where_policy_local_finds_no_endpoint() -> None:
    found = path(service(type="LoadBalancer", externalTrafficPolicy="Local", ingress="192.0.2.7"))
    assert found.switch == {"192.0.2.7": []}


def test_a_load_balancer_without_an_address_says_so() -> None:
    found = path(service(type="LoadBalancer"))
    assert (found.facts["load balancer"], found.switch) == ("has no address yet", {})


def test_what_matters_is_told_and_what_is_usual_is_not() -> None:
    assert path(service()).facts == {"ClusterIP": "10.96.0.20"}
    told = path(
        service(
            sessionAffinity="ClientIP",
            sessionAffinityConfig={"clientIP": {"timeoutSeconds": 10}},
            internalTrafficPolicy="Local",
            trafficDistribution="PreferClose",
            healthCheckNodePort=32000,
            externalIPs=["192.0.2.1"],
        )
    ).facts
    assert told["affinity"] == "a client keeps its endpoint for 10 s after its last connection"
    assert told["internal traffic policy"].startswith("Local: ")
    assert (told["distribution"], told["external IPs"]) == ("PreferClose", "192.0.2.1")
    assert told["health check node port"] == "32000"


@pytest.mark.parametrize(
    ("found", "remark"),
    [
        (service(type="ExternalName", externalName="elsewhere.example", clusterIP=""), "CNAME, elsewhere.example"),
        (service(clusterIP="None"), "headless: DNS answers with the addresses"),
        (service({"service.kubernetes.io/service-proxy-name": "other"}), "leaves it to another proxy, other"),
        (service({"service.kubernetes.io/headless": ""}), "tells proxies to leave it alone"),
    ],
)
def test_what_no_node_serves_is_explained(found: Object, remark: str) -> None:
    assert remark in path(found).remark


def test_silence_names_all_who_are_silent() -> None:
    assert silent(["a"], "no route").startswith("the node daemon of a does not answer: no route; see")
    assert silent(["a", "b"], "no route").startswith("the node daemons of a, b do not answer: no route; see")
