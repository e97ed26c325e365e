"""Addresses of pods: unique, kept, and reused as late as possible."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.agent.ipam import Addresses, AddressesExhausted, choose_address

CIDR = IPv4Network("10.244.1.0/29")
ALL = [CIDR[number] for number in range(2, 7)]


def test_the_first_pod_gets_the_address_after_the_bridges() -> None:
    assert choose_address(CIDR, [], None) == CIDR[2]


def test_an_address_that_was_given_back_is_the_last_to_be_given_again() -> None:
    addresses = Addresses()
    given = [addresses.take("first", CIDR)]
    for number in range(len(ALL)):
        addresses.release("first" if number == 0 else f"pod-{number - 1}")
        given.append(addresses.take(f"pod-{number}", CIDR))
    assert given == [*ALL, ALL[0]]


def test_a_pod_that_asks_again_keeps_its_address() -> None:
    addresses = Addresses()
    assert addresses.take("a", CIDR) == addresses.take("a", CIDR)


def test_an_adopted_address_is_not_given_to_another_pod() -> None:
    addresses = Addresses()
    addresses.adopt("old", CIDR[2])
    assert addresses.take("new", CIDR) == CIDR[3]
    assert addresses.take("old", CIDR) == CIDR[2]


def test_a_preferred_address_is_given_unless_another_pod_holds_it() -> None:
    addresses = Addresses()
    assert addresses.take("a", CIDR, CIDR[5]) == CIDR[5]
    assert addresses.take("b", CIDR, CIDR[5]) == CIDR[2]
    assert addresses.take("c", CIDR, IPv4Address("192.0.2.1")) == CIDR[3]


def test_a_full_network_is_an_error_that_names_it() -> None:
    with pytest.raises(AddressesExhausted, match=r"all 5 pod addresses of 10\.244\.1\.0/29"):
        choose_address(CIDR, ALL, ALL[0])


def test_a_pod_whose_node_has_another_network_now_gets_another_address() -> None:
    addresses = Addresses()
    addresses.take("a", CIDR)
    assert addresses.take("a", IPv4Network("10.244.2.0/24")) == IPv4Address("10.244.2.2")
