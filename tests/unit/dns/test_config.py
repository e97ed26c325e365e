"""The configurations of knotd and Unbound, to the letter where the letter matters."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.dns.config import knot_conf, reverse_zones, unbound_conf

KNOT = """\
server:
    rundir: /run/knot
    pidfile: /tmp/knotd.pid
    listen: 0.0.0.0@53
    udp-workers: 2
    tcp-workers: 2
    background-workers: 1
database:
    storage: /tmp
log:
  - target: stderr
    server: warning
    control: warning
    zone: critical
template:
  - id: default
    storage: /tmp
    zonefile-sync: -1
    zonefile-load: none
    journal-content: none
zone:
  - domain: cluster.local.
  - domain: in-addr.arpa.
  - domain: ip6.arpa.
"""


def test_knotd_is_asked_directly_where_nothing_is_forwarded() -> None:
    assert knot_conf("cluster.local", is_behind=False) == KNOT


def test_knotd_hides_behind_unbound_where_names_are_forwarded() -> None:
    behind = knot_conf("cluster.local", is_behind=True)
    assert behind == KNOT.replace("0.0.0.0@53", "127.0.0.1@5353")


def test_unbound_remembers_nothing_of_the_cluster_and_forwards_the_rest() -> None:
    text = unbound_conf("lab.test", [IPv4Network("10.96.0.0/16")], [IPv4Address("192.0.2.53")])
    stub = "stub-zone:\n    name: {}\n    stub-addr: 127.0.0.1@5353\n    stub-no-cache: yes\n"
    assert stub.format("lab.test.") + stub.format("96.10.in-addr.arpa.") in text
    assert text.endswith("forward-zone:\n    name: .\n    forward-addr: 192.0.2.53\n")


@pytest.mark.parametrize(
    ("network", "zones"),
    [
        ("10.0.0.0/8", ["10.in-addr.arpa."]),
        ("10.244.0.0/16", ["244.10.in-addr.arpa."]),
        ("10.96.0.0/15", ["96.10.in-addr.arpa.", "97.10.in-addr.arpa."]),
        ("203.0.113.0/24", ["113.0.203.in-addr.arpa."]),
        ("203.0.113.64/26", ["113.0.203.in-addr.arpa."]),
    ],
)
def test_reverse_zones_end_at_whole_octets(network: str, zones: list[str]) -> None:
    assert list(reverse_zones(IPv4Network(network))) == zones
