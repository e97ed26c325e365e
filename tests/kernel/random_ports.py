"""Services of every sort, made at random from a seed, to be changed again and again."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from random import Random

from testbed.api.objects import Key
from testbed.proxy.virtualport import Endpoint, Here, Ports, VirtualPort

HERE = Here(
    node="node",
    address=IPv4Address("198.18.0.2"),
    pod_cidr=IPv4Network("10.244.1.0/24"),
    cluster_cidr=IPv4Network("10.244.0.0/16"),
    service_cidr=IPv4Network("10.96.0.0/16"),
)

_SERVICES = 12


def histories(seed: int, steps: int) -> Iterator[tuple[Ports, Ports, list[Key]]]:
    """Changes one after the other: what was, what is to be, and which Services differ."""
    random = Random(seed)
    before: Ports = {}
    for _ in range(steps):
        which = [Key("default", f"s{at}") for at in random.sample(range(_SERVICES), random.randint(1, 4))]
        changed = {each: _service(random, each) for each in which if random.random() < 0.8}
        after = {key: ports for key, ports in before.items() if key not in which} | changed
        yield before, after, which
        before = after


def _service(random: Random, service: Key) -> tuple[VirtualPort, ...]:
    at = int(service.name[1:])
    names = random.sample(["http", "dns", ""], random.randint(1, 2))
    return tuple(_port(random, service, at, name) for name in names)


def _port(random: Random, service: Key, at: int, name: str) -> VirtualPort:
    number = {"http": 80, "dns": 53, "": 8080}[name]
    local = tuple(
        Endpoint(IPv4Address(f"10.244.1.{pod}"), 8080) for pod in random.sample(range(2, 6), random.randint(0, 2))
    )
    remote = tuple(
        Endpoint(IPv4Address(f"10.244.2.{pod}"), 8080) for pod in random.sample(range(2, 9), random.randint(0, 3))
    )
    return VirtualPort(
        service=service,
        name=name,
        protocol="udp" if name == "dns" else "tcp",
        cluster_ip=IPv4Address(f"10.96.0.{10 + at}"),
        port=number,
        node_port=random.choice([0, 30000 + at * 10 + len(name)]),
        external_ips=random.choice([(), (IPv4Address("203.0.113.80"),), (IPv4Address(f"203.0.113.{100 + at}"),)]),
        load_balancer_ips=random.choice([(), (IPv4Address(f"203.0.113.{200 + at}"),)]),
        source_ranges=random.choice(
            [(), (IPv4Network("203.0.113.0/25"),), (IPv4Network("198.18.0.0/16"), IPv4Network("203.0.113.8"))]
        ),
        affinity_s=random.choice([0, 0, 5, 10800]),
        cluster=local + remote,
        local=local,
        is_internal_local=random.random() < 0.3,
        is_external_local=random.random() < 0.4,
        has_endpoints=bool(local or remote),
        serving=frozenset(local + remote),
    )
