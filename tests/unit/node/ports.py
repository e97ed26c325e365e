"""Virtual ports for tests."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from testbed.api.objects import Key
from testbed.proxy.virtualport import Endpoint, VirtualPort

WEB = Key("default", "web")


def endpoint(text: str) -> Endpoint:
    """From `ADDRESS:PORT`."""
    address, _, port = text.partition(":")
    return Endpoint(IPv4Address(address), int(port))


def virtual_port(*cluster: str, **fields: Any) -> VirtualPort:
    """Port 80 of default/web with these endpoints."""
    endpoints = tuple(endpoint(each) for each in cluster)
    known = {"serving": frozenset(endpoints), "has_endpoints": bool(endpoints), **fields}
    return VirtualPort(WEB, "http", "tcp", IPv4Address("10.96.0.20"), 80, cluster=endpoints, **known)
