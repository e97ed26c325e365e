"""When the proxier loads everything and when the change, who goes when the mode changes, and what flows it forgets."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.api.objects import Key
from testbed.errors import KernelError
from testbed.kernel.conntrack import Flow
from testbed.proxy.proxier import Proxier, Synced
from testbed.proxy.services import Snapshot
from testbed.proxy.virtualport import Endpoint, Here, Ports, VirtualPort
from tests.unit.proxy.doors import fake_doors

HERE = Here(
    node="a",
    address=IPv4Address("198.18.0.10"),
    pod_cidr=IPv4Network("10.244.1.0/24"),
    cluster_cidr=IPv4Network("10.244.0.0/16"),
    service_cidr=IPv4Network("10.96.0.0/16"),
)
WEB, DNS = Key("default", "web"), Key("default", "dns")


@dataclass
class RecordingMode:
    """Writes down what is asked of it, in a log that all modes share."""

    name: str
    log: list[str]
    refusals: list[KernelError] = field(default_factory=list)
    edited: bool = False
    can_change: bool = True
    drains: int = 0

    def load(self, ports: Ports, here: Here) -> None:
        self._refuse()
        self.log.append(f"{self.name} load {_printed(ports)}")

    def change(self, before: Ports, after: Ports, which: Collection[Key]) -> bool:
        self._refuse()
        if which:
            self.log.append(f"{self.name} change {_printed({each: after.get(each, ()) for each in which})}")
        return self.can_change

    def was_edited(self) -> bool:
        was, self.edited = self.edited, False
        return was

    def differences(self, ports: Ports) -> list[str]:
        return []

    def explain(self, port: VirtualPort) -> list[str]:
        return []

    def teardown(self) -> bool:
        self.log.append(f"{self.name} teardown")
        self.drains -= 1
        return self.drains < 0

    def _refuse(self) -> None:
        if self.refusals:
            raise self.refusals.pop()


@dataclass
class Modes:
    """Two modes over one log."""

    log: list[str] = field(default_factory=list)
    made: dict[str, RecordingMode] = field(default_factory=dict)

    def make(self, name: str) -> RecordingMode:
        self.made[name] = RecordingMode(name, self.log)
        return self.made[name]

    def since(self) -> list[str]:
        """What was asked since the last call."""
        said = list(self.log)
        self.log.clear()
        return said


@dataclass
class FakeFlows:
    """Flows in memory."""

    flows: list[Flow] = field(default_factory=list)
    listed: int = 0
    refusals: list[KernelError] = field(default_factory=list)

    def udp_flows(self) -> list[Flow]:
        if self.refusals:
            raise self.refusals.pop()
        self.listed += 1
        return list(self.flows)

    def delete(self, flows: Iterable[Flow]) -> None:
        for flow in flows:
            self.flows.remove(flow)


def ports(service: Key, *pods: int, protocol: str = "tcp", node_port: int = 0) -> tuple[VirtualPort, ...]:
    endpoints = tuple(Endpoint(IPv4Address(f"10.244.1.{pod}"), 80) for pod in pods)
    return (
        VirtualPort(
            service=service,
            name="",
            protocol=protocol,
            cluster_ip=IPv4Address("10.96.0.53" if service == DNS else "10.96.0.10"),
            port=80,
            node_port=node_port,
            cluster=endpoints,
            has_endpoints=bool(pods),
            serving=frozenset(endpoints),
        ),
    )


def snapshot(ports: Ports, changed: Collection[Key] | None = None, sequence: int = 1) -> Snapshot:
    return Snapshot(ports, {}, 1, sequence, None if changed is None else frozenset(changed))


def flow(answers: str, destination: str = "10.96.0.53", port: int = 80) -> Flow:
    return Flow(IPv4Address("10.244.1.9"), 5555, IPv4Address(destination), port, IPv4Address(answers), b"")


@pytest.fixture
def modes() -> Modes:
    return Modes()


@pytest.fixture
def flows() -> FakeFlows:
    return FakeFlows()


@pytest.fixture
def proxier(modes: Modes, flows: FakeFlows) -> Proxier:
    return Proxier(fake_doors(), flows, {"one": lambda _: modes.make("one"), "other": lambda _: modes.make("other")})


def _printed(ports: Ports) -> str:
    return " ".join(f"{which.name}:{len(ports[which][0].cluster) if ports[which] else '-'}" for which in sorted(ports))


def test_the_first_sync_loads_everything_and_removes_what_another_mode_left(proxier: Proxier, modes: Modes) -> None:
    assert proxier.sync(snapshot({WEB: ports(WEB, 2)}), HERE, "one") == Synced(is_full=True, forgotten_flows=0)
    assert modes.since() == ["one load web:1", "other teardown"]


def test_a_change_costs_the_change(proxier: Proxier, modes: Modes) -> None:
    both = {WEB: ports(WEB, 2), DNS: ports(DNS, 3)}
    proxier.sync(snapshot(both), HERE, "one")
    modes.since()
    assert not proxier.sync(snapshot(both | {WEB: ports(WEB, 2, 4)}, {WEB}, 2), HERE, "one").is_full
    proxier.sync(snapshot({WEB: ports(WEB, 2, 4)}, {DNS}, 3), HERE, "one")
    proxier.sync(snapshot({WEB: ports(WEB, 2, 4)}, (), 3), HERE, "one")
    assert modes.since() == ["one change web:2", "one change dns:-"]
    assert proxier.sequence == 3


def test_a_snapshot_that_knows_no_changes_is_compared_by_identity(proxier: Proxier, modes: Modes) -> None:
    web = ports(WEB, 2)
    proxier.sync(snapshot({WEB: web, DNS: ports(DNS, 3)}), HERE, "one")
    modes.since()
    proxier.sync(snapshot({WEB: web, DNS: ports(DNS, 3, 4)}), HERE, "one")
    assert modes.since() == ["one change dns:2"]


@pytest.mark.parametrize("what", ["edited", "refusal", "cannot", "moved"])
def test_everything_is_loaded_again_after(proxier: Proxier, modes: Modes, what: str) -> None:
    proxier.sync(snapshot({WEB: ports(WEB, 2)}), HERE, "one")
    modes.since()
    mode, here = modes.made["one"], HERE
    if what == "edited":
        mode.edited = True
        assert proxier.was_edited()
        assert proxier.sequence == 0
    elif what == "refusal":
        mode.refusals = [KernelError("nft: No such file or directory", errno.ENOENT)]
    elif what == "cannot":
        mode.can_change = False
    else:
        here = replace(HERE, pod_cidr=IPv4Network("10.244.7.0/24"))
    assert proxier.sync(snapshot({WEB: ports(WEB, 3)}, {WEB}, 2), here, "one").is_full
    assert modes.since()[-1] == "one load web:1"


def test_a_load_that_fails_altogether_is_raised_and_made_good_by_the_next(proxier: Proxier, modes: Modes) -> None:
    proxier.sync(snapshot({}), HERE, "one")
    modes.made["one"].refusals = [KernelError("no", errno.EPERM), KernelError("not so", errno.ENOENT)]
    with pytest.raises(KernelError, match="no"):
        proxier.sync(snapshot({WEB: ports(WEB, 2)}, {WEB}, 2), HERE, "one")
    assert proxier.sequence == 0
    modes.since()
    proxier.sync(snapshot({WEB: ports(WEB, 2)}, {WEB}, 2), HERE, "one")
    assert modes.since() == ["one load web:1"]


def test_a_new_mode_serves_before_the_old_one_goes(proxier: Proxier, modes: Modes) -> None:
    proxier.sync(snapshot({WEB: ports(WEB, 2)}), HERE, "one")
    modes.since()
    proxier.sync(snapshot({WEB: ports(WEB, 2)}, (), 1), HERE, "other")
    assert modes.since() == ["other load web:1", "one teardown"]
    assert proxier.mode is modes.made["other"]


def test_a_mode_that_is_refused_leaves_the_old_one_serving(proxier: Proxier, modes: Modes) -> None:
    modes.made["other"].drains = 1
    proxier.sync(snapshot({}), HERE, "one")
    modes.since()
    modes.made["other"].refusals = [KernelError("the kernel has none", errno.EOPNOTSUPP)]
    with pytest.raises(KernelError):
        proxier.sync(snapshot({}), HERE, "other")
    assert modes.since() == []


def test_a_mode_that_drains_is_asked_again_until_it_has_gone(proxier: Proxier, modes: Modes) -> None:
    proxier.sync(snapshot({}), HERE, "one")
    modes.made["one"].drains = 1
    for _ in range(3):
        proxier.sync(snapshot({}, (), 1), HERE, "other")
    assert modes.since() == ["one load ", "other teardown", "other load ", "one teardown", "one teardown"]


def test_udp_flows_to_endpoints_that_no_longer_serve_are_forgotten(proxier: Proxier, flows: FakeFlows) -> None:
    kept = [flow("10.244.1.2"), flow("10.244.1.9", destination="10.96.0.99")]
    flows.flows = [*kept, flow("10.244.1.3"), flow("10.96.0.53")]
    wanted = {DNS: ports(DNS, 2, protocol="udp")}
    assert proxier.sync(snapshot(wanted), HERE, "one").forgotten_flows == 2
    assert flows.flows == kept


def test_udp_flows_through_a_node_port_are_forgotten_at_whatever_address_it_was_asked(
    proxier: Proxier, flows: FakeFlows
) -> None:
    kept = flow("10.244.1.2", destination="198.18.0.10", port=30053)
    flows.flows = [kept, flow("10.244.1.3", destination="198.18.0.10", port=30053)]
    proxier.sync(snapshot({DNS: ports(DNS, 2, protocol="udp", node_port=30053)}), HERE, "one")
    assert flows.flows == [kept]


def test_udp_flows_of_a_service_without_serving_endpoints_are_left_alone(proxier: Proxier, flows: FakeFlows) -> None:
    flows.flows = [flow("10.244.1.3")]
    proxier.sync(snapshot({DNS: ports(DNS, protocol="udp")}), HERE, "one")
    assert flows.flows == [flow("10.244.1.3")]


def test_flows_are_listed_only_where_an_endpoint_has_gone_or_the_first_has_come(
    proxier: Proxier, flows: FakeFlows
) -> None:
    steps = [((), 0), ((2,), 1), ((2, 3), 1), ((2, 3, 4), 1), ((2, 4), 2), ((), 2)]
    for sequence, (pods, listed) in enumerate(steps, 1):
        proxier.sync(snapshot({DNS: ports(DNS, *pods, protocol="udp")}, {DNS}, sequence), HERE, "one")
        assert flows.listed == listed


def test_udp_flows_that_came_before_the_load_balancer_had_its_address_are_forgotten(
    proxier: Proxier, flows: FakeFlows
) -> None:
    pending = ports(DNS, 2, protocol="udp")
    proxier.sync(snapshot({DNS: pending}), HERE, "one")
    flows.flows = [flow("203.0.113.7", destination="203.0.113.7")]
    ready = tuple(replace(port, load_balancer_ips=(IPv4Address("203.0.113.7"),)) for port in pending)
    assert proxier.sync(snapshot({DNS: ready}, {DNS}, 2), HERE, "one").forgotten_flows == 1


def test_flows_that_could_not_be_forgotten_are_so_by_the_next_sync(proxier: Proxier, flows: FakeFlows) -> None:
    wanted = snapshot({DNS: ports(DNS, 2, protocol="udp")})
    flows.flows = [flow("10.244.1.3")]
    flows.refusals = [KernelError("netlink: No buffer space available", errno.ENOBUFS)]
    with pytest.raises(KernelError, match="No buffer space"):
        proxier.sync(wanted, HERE, "one")
    assert proxier.sync(wanted, HERE, "one").forgotten_flows == 1
