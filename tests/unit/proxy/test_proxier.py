"""What the proxier loads, and when it loads everything."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.api.objects import Key
from testbed.errors import KernelError
from testbed.kernel.conntrack import Flow
from testbed.kernel.fake import FakeNft
from testbed.proxy.proxier import Proxier
from testbed.proxy.servicemap import Endpoint, VirtualPort

CIDR = IPv4Network("10.244.1.0/24")
WEB, DNS = Key("default", "web"), Key("default", "dns")


@dataclass
class FakeConntrack:
    """Flows in memory."""

    flows: list[Flow] = field(default_factory=list)

    def udp_flows(self) -> list[Flow]:
        return list(self.flows)

    def delete(self, flows: Iterable[Flow]) -> None:
        for flow in flows:
            self.flows.remove(flow)


def ports(vip: str, *pods: int, protocol: str = "tcp") -> tuple[VirtualPort, ...]:
    endpoints = tuple(Endpoint(IPv4Address(f"10.244.1.{pod}"), 80) for pod in pods)
    return (VirtualPort(IPv4Address(vip), protocol, 80, endpoints, frozenset(endpoints)),)


def flow(answers: str, destination: str = "10.96.0.53") -> Flow:
    return Flow(IPv4Address("10.244.1.9"), 5555, IPv4Address(destination), 80, IPv4Address(answers), b"")


@pytest.fixture
def nft() -> FakeNft:
    return FakeNft()


@pytest.fixture
def conntrack() -> FakeConntrack:
    return FakeConntrack()


@pytest.fixture
def proxier(nft: FakeNft, conntrack: FakeConntrack) -> Proxier:
    return Proxier(nft, conntrack)


def test_the_first_load_replaces_whatever_is_there(proxier: Proxier, nft: FakeNft) -> None:
    proxier.sync({WEB: ports("10.96.0.10", 2)}, CIDR)
    [script] = nft.loaded
    assert script.startswith("add table ip testbed-proxy\ndelete table ip testbed-proxy\n")


def test_a_change_loads_the_difference_and_no_change_nothing(proxier: Proxier, nft: FakeNft) -> None:
    both = {WEB: ports("10.96.0.10", 2), DNS: ports("10.96.0.11", 3)}
    proxier.sync(both, CIDR)
    proxier.sync(dict(both), CIDR)
    proxier.sync(both | {WEB: ports("10.96.0.10", 2, 4)}, CIDR)
    assert nft.loaded[1:] == [
        "add element ip testbed-proxy endpoints { 10.96.0.10 . tcp . 80 . 1 : 10.244.1.4 . 80 }\n"
        "delete element ip testbed-proxy services { 10.96.0.10 . tcp . 80 }\n"
        "add element ip testbed-proxy services { 10.96.0.10 . tcp . 80 : goto lb-2 }\n"
    ]


@pytest.mark.parametrize("what", ["reload", "refusal", "outgrown", "moved"])
def test_everything_is_loaded_again_after(proxier: Proxier, nft: FakeNft, what: str) -> None:
    proxier.sync({WEB: ports("10.96.0.10", 2)}, CIDR)
    cidr, pods = CIDR, [2, 3]
    if what == "reload":
        proxier.reload()
    elif what == "refusal":
        nft.refuse(KernelError("nft: No such file or directory", errno.ENOENT))
    elif what == "outgrown":
        pods = list(range(2, 30))
    else:
        cidr = IPv4Network("10.244.7.0/24")
    proxier.sync({WEB: ports("10.96.0.10", *pods)}, cidr)
    assert len(nft.loaded) == 2
    assert "delete table" in nft.loaded[-1]


def test_a_load_that_fails_altogether_is_raised_and_made_good_by_the_next(proxier: Proxier, nft: FakeNft) -> None:
    nft.refuse(KernelError("nft: Operation not permitted", errno.EPERM))
    with pytest.raises(KernelError, match="not permitted"):
        proxier.sync({WEB: ports("10.96.0.10", 2)}, CIDR)
    proxier.sync({WEB: ports("10.96.0.10", 2)}, CIDR)
    assert len(nft.loaded) == 1


def test_rules_too_large_for_one_transaction_take_over_in_the_last(proxier: Proxier, nft: FakeNft) -> None:
    nft.refuse(KernelError("nft: Message too long", errno.EMSGSIZE))
    proxier.sync({Key("default", str(at)): ports(f"10.96.{at // 250}.{at % 250}", 2) for at in range(3000)}, CIDR)
    hooks = [("hook prerouting" in script) for script in nft.loaded]
    assert len(nft.loaded) > 4
    assert hooks == [False] * (len(hooks) - 1) + [True]


def test_udp_flows_to_endpoints_that_no_longer_serve_are_forgotten(proxier: Proxier, conntrack: FakeConntrack) -> None:
    kept = [flow("10.244.1.2"), flow("10.244.1.9", destination="10.96.0.99")]
    conntrack.flows = [*kept, flow("10.244.1.3"), flow("10.96.0.53")]
    proxier.sync({DNS: ports("10.96.0.53", 2, protocol="udp")}, CIDR)
    assert conntrack.flows == kept


def test_udp_flows_of_a_service_without_serving_endpoints_are_left_alone(
    proxier: Proxier, conntrack: FakeConntrack
) -> None:
    conntrack.flows = [flow("10.244.1.3")]
    proxier.sync({DNS: ports("10.96.0.53", protocol="udp")}, CIDR)
    assert conntrack.flows == [flow("10.244.1.3")]
