"""Kernel parameters follow the namespace."""

from __future__ import annotations

import pytest

from testbed.errors import KernelError
from testbed.kernel.sysctl import get_sysctl, set_sysctls
from tests.kernel.lab import Lab


def test_a_parameter_is_set_in_its_namespace_and_nowhere_else(lab: Lab) -> None:
    here, there = lab.place("tb-c-here"), lab.place("tb-c-there")
    before = get_sysctl(None, "net.ipv4.ip_forward")
    set_sysctls(here, {"net.ipv4.ip_forward": "1"})
    set_sysctls(there, {"net.ipv4.ip_forward": "0"})
    assert get_sysctl(here, "net.ipv4.ip_forward") == "1"
    assert get_sysctl(there, "net.ipv4.ip_forward") == "0"
    assert get_sysctl(None, "net.ipv4.ip_forward") == before


def test_a_dot_in_a_devices_name_is_written_as_a_slash(lab: Lab) -> None:
    lab.links("tb-c-here").ensure_bridge("br.7", mtu=1500)
    set_sysctls(lab.place("tb-c-here"), {"net.ipv4.conf.br/7.rp_filter": "2"})
    assert get_sysctl(lab.place("tb-c-here"), "net.ipv4.conf.br/7.rp_filter") == "2"


def test_a_parameter_that_does_not_exist_is_named(lab: Lab) -> None:
    with pytest.raises(KernelError, match=r"net\.ipv4\.nonsense"):
        set_sysctls(lab.place("tb-c-here"), {"net.ipv4.nonsense": "1"})
