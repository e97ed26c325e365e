"""How the path of a Service reads."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.cli.service import annotated, summary

PODS = {"10.244.0.2": "web-1 on a", "10.244.0.20": "web-2 on b"}


def port(**fields: Any) -> dict[str, Any]:
    usual = {
        "name": "",
        "port": 80,
        "protocol": "TCP",
        "nodePort": 0,
        "externalIPs": [],
        "loadBalancerIPs": [],
        "internal": ["10.244.0.2:8080", "10.244.0.20:8080"],
        "external": ["10.244.0.2:8080"],
        "internalRefusal": "",
        "externalRefusal": "",
    }
    return {**usual, **fields}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "80/TCP: a connection to the ClusterIP goes to one of 2 endpoints."),
        ({"name": "http"}, "80/TCP (http): a connection to the ClusterIP goes to one of 2 endpoints."),
        (
            {"nodePort": 30080},
            "80/TCP: a connection to the ClusterIP goes to one of 2 endpoints;"
            " what comes from outside goes to 10.244.0.2:8080.",
        ),
        (
            {"nodePort": 30080, "external": ["10.244.0.2:8080", "10.244.0.20:8080"]},
            "80/TCP: a connection to the ClusterIP or from outside goes to one of 2 endpoints.",
        ),
        (
            {"internalRefusal": "refuse", "externalRefusal": "drop", "loadBalancerIPs": ["192.0.2.1"]},
            "80/TCP: a connection to the ClusterIP is refused: there are no endpoints;"
            " what comes from outside is dropped: no endpoint is on this node.",
        ),
    ],
)
def test_a_port_is_summed_up_in_a_sentence(fields: dict[str, Any], said: str) -> None:
    assert summary(port(**fields)) == said


@pytest.mark.parametrize(
    ("line", "pod"),
    [
        ("map endpoints { 10.96.0.20 . tcp . 80 . 0 : 10.244.0.2 . 8080 }", "web-1 on a"),
        ("-A KUBE-SEP-X -p tcp -j DNAT --to-destination 10.244.0.20:8080", "web-2 on b"),
        ("set x: 10.244.0.2/80, 10.244.0.20/80", ""),
        ("map services { 10.244.0.200 . tcp . 80 : goto lb-2 }", ""),
        ("version 1.10.244.0.2", ""),
    ],
)
def test_an_endpoints_pod_is_named_where_its_address_stands_alone(line: str, pod: str) -> None:
    assert annotated(line, PODS) == (f"{line}  ({pod})" if pod else line)


def test_of_several_endpoints_each_has_its_pod_behind_it() -> None:
    line = "goto lb-3: one of 3 at random, 10.244.0.2:8080, 10.244.0.20:8080, 10.244.0.9:8080"
    assert annotated(line, PODS) == (
        "goto lb-3: one of 3 at random, 10.244.0.2:8080 (web-1 on a), 10.244.0.20:8080 (web-2 on b), 10.244.0.9:8080"
    )
