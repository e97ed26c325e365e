"""Addresses and networks in the fields of objects (apimachinery `pkg/util/validation`, KEP-4858)."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network, ip_network

from testbed.apiserver.refusals import Cause, invalid

_SPECIAL = {
    0: (IPv4Network("0.0.0.0/32"), "may not be unspecified (0.0.0.0)"),
    127: (IPv4Network("127.0.0.0/8"), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
    169: (IPv4Network("169.254.0.0/16"), "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
    224: (IPv4Network("224.0.0.0/24"), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
}
"""By the first octet, so that a hundred endpoints cost a hundred look-ups."""


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
    elif (special := _SPECIAL.get(int(address) >> 24)) and address in special[0]:
        yield invalid(field, value, special[1])


def cidr(value: str, field: str) -> Iterator[Cause]:
    """A network in CIDR notation; bits of a host in it do no harm."""
    address, _, length = value.partition("/")
    try:
        ip_network(f"{address}/{int(length) if length.isdecimal() else 'none'}", strict=False)
    except ValueError:
        yield invalid(field, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24)")
