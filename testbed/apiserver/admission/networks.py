"""Addresses and networks in the fields of objects (apimachinery `pkg/util/validation`, KEP-4858)."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, ip_network

from testbed.apiserver.refusals import Cause, invalid

CONTROL_BLOCK = 256
"""Of 224.0.0.0: link-local multicast is its first /24 (RFC 5771)."""


def ip_address(value: str, field: str) -> Iterator[Cause]:
    """An IPv4 address in canonical form: no leading zeros, which some read as octal."""
    if parsed_ip(value) is None:
        yield invalid(field, value, "must be a valid IP address, (e.g. 10.9.8.7)")


def parsed_ip(value: str) -> IPv4Address | None:
    """The address, or None where it is not one."""
    try:
        return IPv4Address(value)
    except AddressValueError:
        return None


def public_ip(value: str, field: str) -> Iterator[Cause]:
    """An address that other machines can have: not unspecified, of the loopback, or of the link alone."""
    address = parsed_ip(value)
    if address is None:
        yield from ip_address(value, field)
    elif address.is_unspecified:
        yield invalid(field, value, f"may not be unspecified ({value})")
    elif address.is_loopback:
        yield invalid(field, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    elif address.is_link_local:
        yield invalid(field, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    elif int(address) - int(IPv4Address("224.0.0.0")) in range(CONTROL_BLOCK):
        yield invalid(field, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")


def cidr(value: str, field: str) -> Iterator[Cause]:
    """A network in CIDR notation; bits of a host in it do no harm."""
    address, _, length = value.partition("/")
    try:
        ip_network(f"{address}/{int(length) if length.isdecimal() else 'none'}", strict=False)
    except ValueError:
        yield invalid(field, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24)")
