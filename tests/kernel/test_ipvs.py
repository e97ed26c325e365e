"""One contract for the kernel's virtual servers and for those in memory."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from testbed.errors import KernelError
from testbed.kernel import netns
from testbed.kernel.fake_ipvs import FakeIpvs
from testbed.kernel.ipvs import Ipvs, NetlinkIpvs, why_not
from testbed.kernel.ipvs_wire import Real, RealState, Server
from tests.kernel.lab import Lab

WEB = Server(IPv4Address("10.96.0.10"), "tcp", 80)
DNS = Server(IPv4Address("10.96.0.10"), "udp", 53)
ONE, TWO = (Real(IPv4Address(f"10.244.1.{number}"), 8080) for number in (1, 2))


def skip_without_ipvs(place: Path) -> None:
    """Skip, with the reason, where this kernel cannot run it."""
    if reason := netns.inside(place, why_not):
        pytest.skip(reason)


@pytest.fixture(params=["fake", "real"])
def ipvs(request: pytest.FixtureRequest) -> Iterator[Ipvs]:
    if request.param == "fake":
        yield FakeIpvs()
        return
    lab: Lab = request.getfixturevalue("lab")
    skip_without_ipvs(lab.place("tb-d-node"))
    ipvs = NetlinkIpvs(lab.place("tb-d-node"))
    yield ipvs
    ipvs.close()


def test_virtual_servers_are_made_changed_listed_and_counted(ipvs: Ipvs) -> None:
    assert (ipvs.servers(), ipvs.count()) == ({}, 0)
    ipvs.ensure_servers({WEB: 0, DNS: 0})
    ipvs.ensure_servers({WEB: 300})
    assert (ipvs.servers(), ipvs.count()) == ({WEB: 300, DNS: 0}, 2)
    ipvs.ensure_servers({WEB: 0})
    assert ipvs.servers() == {WEB: 0, DNS: 0}


def test_deleting_a_virtual_server_takes_its_real_servers_along_and_again_is_fine(ipvs: Ipvs) -> None:
    ipvs.ensure_servers({WEB: 0, DNS: 0})
    ipvs.ensure_reals([(WEB, ONE), (DNS, ONE)], weight=1)
    for _ in range(2):
        ipvs.delete_servers([WEB])
    assert ipvs.servers() == {DNS: 0}
    assert ipvs.reals(WEB) == {}
    assert ipvs.reals(DNS) == {ONE: RealState(1)}


def test_real_servers_are_added_weighed_and_deleted(ipvs: Ipvs) -> None:
    ipvs.ensure_servers({WEB: 0})
    ipvs.ensure_reals([(WEB, ONE), (WEB, TWO)], weight=1)
    ipvs.ensure_reals([(WEB, TWO)], weight=0)
    assert ipvs.reals(WEB) == {ONE: RealState(1), TWO: RealState(0)}
    for _ in range(2):
        ipvs.delete_reals([(WEB, TWO)])
    assert ipvs.reals(WEB) == {ONE: RealState(1)}


def test_a_change_of_persistence_keeps_the_real_servers(ipvs: Ipvs) -> None:
    ipvs.ensure_servers({WEB: 0})
    ipvs.ensure_reals([(WEB, ONE)], weight=1)
    ipvs.ensure_servers({WEB: 10800})
    assert ipvs.reals(WEB) == {ONE: RealState(1)}


def test_a_real_server_needs_its_virtual_server(ipvs: Ipvs) -> None:
    with pytest.raises(KernelError) as refusal:
        ipvs.ensure_reals([(WEB, ONE)], weight=1)
    assert refusal.value.errno == errno.ESRCH


def test_each_namespace_has_virtual_servers_of_its_own(lab: Lab) -> None:
    skip_without_ipvs(lab.place("tb-d-node"))
    here, there = NetlinkIpvs(lab.place("tb-d-node")), NetlinkIpvs(lab.place("tb-d-other"))
    here.ensure_servers({WEB: 0})
    assert there.servers() == {}
    here.close()
    there.close()


def test_a_kernel_without_ipvs_says_so_and_counts_nothing(lab: Lab) -> None:
    reason = netns.inside(lab.place("tb-d-node"), why_not)
    ipvs = NetlinkIpvs(lab.place("tb-d-node"))
    if "no IPVS" in reason:
        with pytest.raises(KernelError, match="the kernel has no IPVS"):
            ipvs.servers()
    assert ipvs.count() == 0
    ipvs.close()
